# The host's end of the tunnel. $1: release or hold. The connection's process is named in the file `tunnel` beside this one, with
# the time of its start: after a reboot its number is another's.
mark=$(dirname "$0")/tunnel
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
case $1 in
release)
    # After a cut the host may keep the old connection, and with it the port, for hours: end it.
    read -r old start 2>/dev/null <"$mark" || exit 0
    [ "$(started "$old")" != "$start" ] || kill -9 "$old"
    rm -f "$mark"
    ;;
hold)
    process=$PPID
    while [ "$process" -gt 1 ]; do
        case $(cat "/proc/$process/comm") in sshd*) break ;; esac
        process=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$process/status")
    done
    echo "$process $(started "$process")" >"$mark"
    # Writing now and then notices a dead link.
    while echo; do sleep 15; done
    ;;
esac
