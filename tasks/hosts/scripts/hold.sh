# Only one provisioning at a time changes a host. $1: folder of the installation; sourced before a script.
mkdir -p "$1/state" && : >"$1/.fabrating" || exit # the mark: all in this folder is ours
exec 9>"$1/state/lock"
if ! flock -w 900 9; then
    echo "another provisioning has been changing this host for 15 minutes" >&2
    exit 75
fi
# What a person set for pip, uv, conda and Python is for environments of their own. Where packages come from counts here, too.
for variable in $(env | sed -n 's/^\(\(PIP\|UV\|CONDA\|PYTHON\|VIRTUAL_ENV\)[A-Za-z0-9_]*\)=.*/\1/p'); do
    case $variable in
    *INDEX* | *FIND_LINKS* | *MIRROR* | *CERT* | *TLS* | *PROXY* | *_HOST | *KEYRING* | *TIMEOUT | *RETRIES) ;;
    *) unset "$variable" ;;
    esac
done
export PIP_USER=0 # a pip.conf may say otherwise
