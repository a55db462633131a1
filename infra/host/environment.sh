# The Python environment in folder/venv.
# $1: folder  $2: prepared environment or ""  $3: python or ""  $4: uv or ""  $5: torch requirement
# $6: index of torch or ""  $7: find-links or ""
folder=$1 prepared=$2 python=$3 uv=$4 torch=$5 torch_index=$6 links=$7
cd "$folder" || exit
venv=$folder/venv
if [ -n "$prepared" ]; then
    overlay "$prepared" "$venv"
    exit
fi
# A half-made environment, or one that leaned on a prepared one, is made anew.
if [ ! -x "$venv/bin/python" ] || ls "$venv"/lib/python*/site-packages/prepared-environment.pth >/dev/null 2>&1; then
    rm -rf "$venv"
fi
if [ -n "$uv" ]; then
    [ -d "$venv" ] || "$uv" venv --quiet --python "${python:-3.12}" "$venv" || exit
    install() { "$uv" pip install --quiet --python "$venv/bin/python" "$@" </dev/null; }
else
    [ -d "$venv" ] || "$python" -m venv "$venv" || exit
    install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" </dev/null; }
fi
set --
[ -z "$links" ] || set -- --find-links "$links"
# torch first, with its dependencies: the lock names no CUDA libraries, and everything else completely.
if [ -n "$torch_index" ]; then
    install "$@" --index-url "$torch_index" "$torch" || exit
else
    install "$@" "$torch" || exit
fi
install "$@" --no-deps -r "$folder/requirements.txt"
