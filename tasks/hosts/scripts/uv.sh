# tell WHAT COMMAND...: run uv or pip; if it fails, say what that means and, in one line, its first and last reason.
tell() {
    what=$1 said=$(mktemp) && shift || return
    "$@" </dev/null 2>"$said"
    status=$?
    [ $status = 0 ] || awk -v what="$what" '{ sub(/^ *(error|ERROR|WARNING|cause|Caused by): */, "") } NR == 2 { first = $0 }
        END { print what " (" (NR > 2 ? first ": " : "") $0 ")" }' "$said" >&2
    rm -f "$said"
    return $status
}
# get_uv FOLDER UV PYTHON LINKS: set `uv` to the host's own, or to one that PYTHON installs into FOLDER/tools. What it keeps
# (downloads, a Python where the host has none that fits) lies in FOLDER, too. Meant to be put before a script.
get_uv() {
    export UV_CACHE_DIR="$1/cache/uv" UV_PYTHON_INSTALL_DIR="$1/tools/python" UV_NO_PROGRESS=1
    uv=$2
    [ -z "$uv" ] || return 0
    uv=$1/tools/bin/uv
    [ ! -x "$uv" ] || return 0
    [ -n "$3" ] || {
        echo "there is neither uv, nor a Python with venv to install it with" >&2
        return 66
    }
    "$3" -m venv "$1/tools" || return
    set -- "$1/tools/bin/python" "$4"
    tell "uv is not to be had: install it on the host, or give find_links" \
        "$1" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir ${2:+--find-links "$2"} uv
}
