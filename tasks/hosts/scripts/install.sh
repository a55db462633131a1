# Install FabRating's wheel into folder/venv. $1: folder  $2: wheel  $3: uv or ""  $4: python to install uv with
python=$1/venv/bin/python
if "$python" -I -c 'import pip' 2>/dev/null; then # of a prepared environment
    "$python" -I -m pip install --quiet --disable-pip-version-check --no-input --no-index --no-deps --force-reinstall "$2"
else
    get_uv "$1" "$3" "$4" "" && "$uv" pip install --quiet --python "$python" --no-index --no-deps --reinstall "$2"
fi
