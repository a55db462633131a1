# The Python environment in folder/venv.
# $1: folder  $2: prepared environment or ""  $3: python, or the version to fetch  $4: uv or ""  $5: python to install uv with
# $6: torch requirement  $7: index of torch or ""  $8: find-links or ""
folder=$1 prepared=$2 python=$3 torch=$6 torch_index=$7 links=$8
cd "$folder" || exit
venv=$folder/venv
if [ -n "$prepared" ]; then
    overlay "$prepared" "$venv"
    exit
fi
get_uv "$folder" "$4" "$5" "$links" || exit
# What was not made for this Python and this PyTorch is made anew: an installed build of another index counts as the right one.
wanted="$python $torch $torch_index $links"
if [ "$(cat "$venv/recipe" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$venv"
    case $python in
    */*) set -- ;;
    *) set -- --python-preference only-managed ;; # the host's own of that version may lack headers
    esac
    tell "Python $python is not to be had: install Python 3.11, 3.12 or 3.13" \
        "$uv" venv --quiet "$@" --python "$python" "$venv" || exit
    printf '%s\n' "$wanted" >"$venv/recipe" || exit
fi
install() { # what the links lack comes from the index
    remedy=$1
    shift
    if [ -n "$links" ]; then
        "$uv" pip install --quiet --python "$venv/bin/python" --find-links "$links" --no-index "$@" </dev/null 2>/dev/null && return
        set -- --find-links "$links" "$@"
    fi
    tell "$remedy" "$uv" pip install --quiet --python "$venv/bin/python" "$@"
}
# torch first, with its dependencies: the lock names no CUDA libraries, and everything else completely.
install "$torch is not to be had: give another torch_index, or find_links" ${torch_index:+--index-url "$torch_index"} "$torch" &&
    install "the lock file's packages are not to be had: give find_links" --no-deps -r "$folder/requirements.txt"
