# tell WHAT COMMAND...: run uv or pip; if it fails, say what that means (nothing: "") and, in one line, its first and last reason. Ends with 69 if
# the tool asked wherever it was to ask and was told that nothing there fits, or that there is no such place (404, 410): another try tells
# the same.
tell() {
    what=$1 said=$(mktemp) && shift || return
    PIP_LOG=$said.log "$@" </dev/null 2>"$said" # to its log alone pip says that an index answered with an error
    status=$?
    [ $status = 0 ] || {
        grep -o 'Could not fetch URL .*' "$said.log" >>"$said" 2>/dev/null
        gone='(404|410) '
        ! grep -Eq "No solution found|No matching distribution found|Failed to read .--find-links. directory|client error .$gone" "$said" ||
            grep 'Could not fetch URL' "$said" | grep -Evq ": $gone" || grep -Eq 'is being ignored|hint: An index' "$said" || status=69
        awk -v what="$what" '{ sub(/^ *(error|ERROR|WARNING|cause|Caused by): */, "") } NR == 2 { first = $0 }
            END { said = (NR > 2 ? first ": " : "") $0; print what (what == "" ? said : " (" said ")") }' "$said" >&2
    }
    rm -f "$said" "$said.log"
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
    "$3" -I -m venv "$1/tools" || return
    set -- "$1/tools/bin/python" "$4"
    tell "uv is not to be had: install it on the host, or give find_links" \
        "$1" -I -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir ${2:+--find-links "$2"} uv
}
