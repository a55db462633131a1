#!/bin/sh
# The Prefect worker of this host.
cd "$(dirname "$0")" || exit
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE # a person's, for environments of their own
set -a
. ./worker.env
# The password goes to our own server alone: wait until the port is the tunnel's.
while [ -n "$FABRATING_TUNNEL" ] && ! sh ./tunnel-far.sh own "$FABRATING_TUNNEL"; do sleep 2; done
. ./secrets.env
NO_PROXY=127.0.0.1,localhost,::1,${no_proxy:-$NO_PROXY} # the tunnel ends on this host
no_proxy=$NO_PROXY
set +a
mkdir -p "$TMPDIR" && cd "$FABRATING_CODE" || exit
exec "$FABRATING_HOME/venv/bin/python" -m prefect worker start --type process --pool "$FABRATING_POOL" --limit "$FABRATING_RUNS" \
    --name "$FABRATING_WORKER" --install-policy never
