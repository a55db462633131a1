# Install Debian packages. $1: root or sudo; the rest: packages.
privilege=$1
shift
as_root() { if [ "$privilege" = sudo ]; then sudo -n "$@"; else "$@"; fi; }
apt() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
apt update >/dev/null || echo "some package lists are out of reach" >&2 # perhaps none that matters
apt install -y --no-install-recommends "$@" </dev/null >/dev/null
