# Install FabRating's wheel into folder/venv. $1: folder  $2: wheel  $3: uv or ""
python=$1/venv/bin/python
if "$python" -c 'import pip' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-index --no-deps --force-reinstall "$2"
elif [ -n "$3" ]; then
    "$3" pip install --quiet --python "$python" --no-index --no-deps --reinstall "$2"
else
    echo "neither pip nor uv is there to install FabRating with" >&2
    exit 66
fi
