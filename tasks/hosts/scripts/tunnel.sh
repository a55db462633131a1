#!/bin/sh
# Keep a port of a host's loopback connected to the Prefect server here: one connection; who calls starts it again.
# $1: port there  $2: address:port of the server here  $3: tunnel-far.sh there, quoted for its shell
# the rest: ssh, its options and the host
port=$1 server=$2 far=$3
shift 3
"$@" "sh $far release" </dev/null >/dev/null
exec "$@" -o ExitOnForwardFailure=yes -R "127.0.0.1:$port:$server" "sh $far hold" </dev/null >/dev/null
