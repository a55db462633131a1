# The host's end of the tunnel. $1: release, hold, or own with the port $2. The connection's process and that of `hold` are named in
# the file `tunnel` beside this one, each with the time of its start: after a reboot its number is another's.
mark=$(dirname "$0")/tunnel
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
case $1 in
release)
    # After a cut the host may keep the old connection, and with it the port, for hours: end it. And `hold` would notice only when it writes.
    read -r old start holding since 2>/dev/null <"$mark" || exit 0
    [ -z "$holding" ] || [ "$(started "$holding")" != "$since" ] || kill "$holding"
    [ "$(started "$old")" != "$start" ] || kill -9 "$old"
    rm -f "$mark"
    ;;
hold)
    process=$PPID
    while [ "$process" -gt 1 ]; do
        case $(cat "/proc/$process/comm") in sshd*) break ;; esac
        process=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$process/status")
    done
    sleep 1 # where the port is taken, the connection ends before
    trap 'kill "$pause"; exit' TERM
    echo "$process $(started "$process") $$ $(started $$)" >"$mark"
    # Writing now and then notices a dead link.
    while echo; do
        sleep 15 &
        pause=$!
        wait "$pause"
    done
    ;;
own)
    # Whether the port is this connection's: no secret may go to another's server, which can answer there just as well.
    account=$(awk -v port="$(printf '%04X' "$2")" '$4 == "0A" && ($2 == "0100007F:" port || $2 == "00000000:" port) {
        print $8; exit }' /proc/net/tcp)
    if [ -n "$account" ] && [ "$account" != "$(id -u)" ]; then
        echo "its port $2 is taken by the account $(id -nu "$account" 2>/dev/null || echo "$account")" >&2
        exit 66
    fi
    read -r process start rest 2>/dev/null <"$mark" && [ "$(started "$process")" = "$start" ] && [ -n "$account" ] && exit
    echo "the tunnel is not connected" >&2
    exit 1
    ;;
esac
