# Describe a host, one `name=value` a line. $1: folder of the installation, below the home directory or absolute.
folder=$1
case $folder in
/*) ;;
*) folder=${HOME%/}/$folder ;;
esac
say() { printf '%s=%s\n' "$1" "$2"; }

say home "$HOME"
say folder "$folder"
say user "$(id -un)"
say clock "$(date +%s)"
if [ -r /etc/os-release ]; then
    . /etc/os-release
    say system "${PRETTY_NAME:-unknown}"
    say distribution "${ID:-unknown} ${ID_LIKE:-}"
fi
say architecture "$(uname -m)"
say cores "$(nproc 2>/dev/null || echo 1)"
say memory_bytes "$(awk '/^MemTotal:/ {printf "%.0f", $2 * 1024}' /proc/meminfo)"

place=$folder
while [ ! -e "$place" ]; do place=$(dirname "$place"); done
say disk_free_bytes "$(df -B1 --output=avail "$place" | tail -n 1 | tr -d ' ')"
if [ -w "$place" ]; then say writable yes; else say writable no; fi

# A folder is ours when we marked it, as older versions did by its lock, or when it holds nothing but artifacts.
if [ ! -e "$folder/.fabrating" ] && [ ! -e "$folder/state/lock" ]; then
    ls -A "$folder" 2>/dev/null | grep -vx -e root -e lost+found | head -n 3 | while IFS= read -r name; do say others "$name"; done
fi
at=$(stat -c %m "$place" 2>/dev/null | sed 's/ /\\040/g') awk '$2 == ENVIRON["at"] { options = $4 }
    END { exit options !~ /(^|,)noexec(,|$)/ }' /proc/self/mounts && say noexec yes

if [ "$(id -u)" = 0 ]; then
    say privilege root
elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
    say privilege sudo
else
    say privilege none
fi

# Units of a user end with the last session, unless the user lingers or may say so.
lingers() {
    [ "$(loginctl show-user --value -p Linger "$(id -un)" 2>/dev/null)" = yes ] ||
        pkcheck --action-id org.freedesktop.login1.set-self-linger --process $$ >/dev/null 2>&1
}
if [ ! -d /run/systemd/system ]; then
    say services supervised
elif [ "$(id -u)" = 0 ] || sudo -n true >/dev/null 2>&1; then
    say services system
elif XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user show-environment >/dev/null 2>&1 && lingers; then
    say services user
else
    say services supervised
fi

for command in rsync git cc flock setsid base64 sha256sum; do
    command -v $command >/dev/null 2>&1 || say missing $command
done

# The newest Python that our packages support wins. Any that makes environments can install uv, which fetches one that does.
for python in python3.13 python3.12 python3.11 python3; do
    path=$(command -v $python 2>/dev/null) || continue
    "$path" -I -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue
    say python "$path"
    header=$("$path" -I -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -e "$header" ] || say missing Python.h
    break
done
maker=
for python in python3 python3.13 python3.12 python3.11; do
    path=$(command -v $python 2>/dev/null) && "$path" -I -c 'import ensurepip, venv' 2>/dev/null || continue
    maker=$path
    break
done
say maker "$maker"
[ -n "$maker" ] || say missing venv
for uv in uv "$HOME/.local/bin/uv" "$folder/tools/bin/uv"; do
    path=$(command -v "$uv" 2>/dev/null) || continue
    say uv "$path"
    break
done

if command -v nvidia-smi >/dev/null 2>&1; then
    if gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits 2>&1); then
        printf '%s\n' "$gpus" | while IFS= read -r line; do say gpu "$line"; done
    else
        say gpu_problem "nvidia-smi says: $(printf '%s' "$gpus" | head -n 1)"
    fi
else
    say gpu_problem "nvidia-smi is not installed"
fi
