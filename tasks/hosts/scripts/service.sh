# A service: systemd's, or supervised where there is no systemd.
# $1: install, stop, status or log (its last lines)  $2: system, user or supervised  $3: name  $4: its folder  $5: python
# $6: root, sudo or none  the rest: command (install of a supervised one)
# The unit, for install by systemd, is in FOLDER/NAME.service.
action=$1 kind=$2 name=$3 folder=$4 python=$5 privilege=$6
shift 6
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
home_units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
as_root() { if [ "$privilege" = sudo ]; then sudo -n "$@"; else "$@"; fi; }

of() { # KIND: what the functions below are about
    if [ "$1" = user ]; then
        units=$home_units
        own() { "$@"; }
        control() { systemctl --user "$@"; }
    else
        units=/etc/systemd/system
        own() { as_root "$@"; }
        control() { as_root systemctl "$@"; }
    fi
}

# A user's services end with the user's last session, unless the user lingers.
linger() {
    [ "$(loginctl show-user --value -p Linger "$(id -un)")" != yes ] || return 0
    loginctl enable-linger && : >"$units/fabrating.lingers"
}
linger_no_more() {
    [ -e "$units/fabrating.lingers" ] || return 0
    ls "$units"/fabrating-*.service >/dev/null 2>&1 || { rm -f "$units/fabrating.lingers" && loginctl disable-linger; }
}

# Of whatever kind it was made: rights may have changed since.
end() {
    [ ! -f "$folder/supervise.py" ] || "$python" "$folder/supervise.py" stop "$folder" "$name" || return
    for one in system user; do
        of $one
        [ -e "$units/$name.service" ] || continue
        control disable --quiet --now "$name.service" && own rm -f "$units/$name.service" && control daemon-reload || return
        control reset-failed "$name.service" 2>/dev/null || true # killed, as it is to be, counts as failed
    done
}

case $action-$kind in
install-supervised) end && "$python" "$folder/supervise.py" start "$folder" "$name" "$@" 9>&- ;;
install-*)
    end && of "$kind" && own mkdir -p "$units" && own cp "$folder/$name.service" "$units/$name.service" || exit
    [ "$kind" = system ] || linger || exit
    control daemon-reload && control enable --quiet --now "$name.service"
    ;;
stop-*) end && of user && linger_no_more ;;
status-supervised) [ -f "$folder/supervise.py" ] && "$python" "$folder/supervise.py" status "$folder" "$name" ;;
log-supervised) [ ! -f "$folder/$name.log" ] || tail -n 20 "$folder/$name.log" ;;
log-user) journalctl --user -q -n 20 -o cat -u "$name" ;;
log-system) as_root journalctl -q -n 20 -o cat -u "$name" ;;
status-*) of "$kind" && control is-active --quiet "$name.service" ;;
esac
