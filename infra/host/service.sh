# A service: systemd's, or supervised where there is no systemd.
# $1: install, stop or status  $2: system, user or supervised  $3: name  $4: its folder  $5: python
# $6: root, sudo or none  the rest: command (install of a supervised one)
# The unit, for install by systemd, is in FOLDER/NAME.service.
action=$1 kind=$2 name=$3 folder=$4 python=$5 privilege=$6
shift 6
as_root() { if [ "$privilege" = sudo ]; then sudo -n "$@"; else "$@"; fi; }
case $kind in
system)
    units=/etc/systemd/system
    control() { as_root systemctl "$@"; }
    ;;
user)
    units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    privilege=none
    export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
    control() { systemctl --user "$@"; }
    ;;
supervised)
    case $action in
    install)
        "$python" "$folder/supervise.py" stop "$folder" "$name" || exit
        "$python" "$folder/supervise.py" start "$folder" "$name" "$@" 9>&-
        ;;
    stop) [ ! -f "$folder/supervise.py" ] || "$python" "$folder/supervise.py" stop "$folder" "$name" ;;
    status) "$python" "$folder/supervise.py" status "$folder" "$name" ;;
    esac
    exit
    ;;
esac
case $action in
install)
    as_root mkdir -p "$units" && as_root cp "$folder/$name.service" "$units/$name.service" || exit
    # A user's services end with the last session unless the user lingers.
    [ "$kind" = system ] || loginctl enable-linger >/dev/null 2>&1 || true
    control daemon-reload && control enable --quiet "$name.service" && control restart "$name.service"
    ;;
stop)
    [ -e "$units/$name.service" ] || exit 0
    control disable --quiet --now "$name.service"
    as_root rm -f "$units/$name.service"
    control daemon-reload
    ;;
status) control is-active --quiet "$name.service" ;;
esac
