#!/bin/sh
# The Prefect worker of this host: one flow run at a time.
cd "$(dirname "$0")" || exit
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE # a person's, for environments of their own
set -a
. ./worker.env
. ./secrets.env
set +a
mkdir -p "$TMPDIR" && cd "$FABRATING_CODE" || exit
exec "$FABRATING_HOME/venv/bin/python" -m prefect worker start --type process --pool "$FABRATING_POOL" --limit 1 \
    --name "$FABRATING_WORKER" --install-policy never
