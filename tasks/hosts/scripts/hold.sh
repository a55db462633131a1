# Only one provisioning at a time changes a host. $1: folder of the installation; sourced before a script.
mkdir -p "$1/state" || exit
exec 9>"$1/state/lock"
if ! flock -w 900 9; then
    echo "another provisioning has been changing this host for 15 minutes" >&2
    exit 75
fi
