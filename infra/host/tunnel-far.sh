# The host's end of the tunnel. $1: release or hold. The connection's process is named in the file `tunnel` beside this one.
mark=$(dirname "$0")/tunnel
case $1 in
release)
    # After a cut the host may keep the old connection, and with it the port, for hours: end it.
    old=$(cat "$mark" 2>/dev/null) || exit 0
    case $(cat "/proc/$old/comm" 2>/dev/null) in sshd*) kill -9 "$old" ;; esac
    rm -f "$mark"
    ;;
hold)
    process=$PPID
    while [ "$process" -gt 1 ]; do
        case $(cat "/proc/$process/comm") in sshd*) break ;; esac
        process=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$process/status")
    done
    echo "$process" >"$mark"
    # Writing now and then notices a dead link.
    while echo; do sleep 15; done
    ;;
esac
