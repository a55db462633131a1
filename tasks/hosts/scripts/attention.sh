# Flash Attention in folder/venv, beside the PyTorch that is there, which it must not replace: every package is named, with no dependencies.
# Ends with 69 where there is no wheel, with another status where that is not known.
# $1: folder  $2: uv or ""  $3: python to install uv with  $4: find-links or ""  $5: "index": the package index may be asked  $6...: packages
folder=$1 links=$4 index=$5 python=$1/venv/bin/python
if "$python" -I -c 'import pip' 2>/dev/null; then # of a prepared environment
    set -- pip "$@"
else
    get_uv "$folder" "$2" "$3" "$links" || exit
    set -- uv "$@"
fi
tool=$1
shift 6
cuda=$("$python" -I -c 'import torch; print((torch.version.cuda or "none").partition(".")[0])') || exit
for package in "$@"; do # libraries for the CUDA of the PyTorch that is there
    set -- "$@" "$(printf %s "$package" | sed "s/CUDA/$cuda/")"
    shift
done
install() {
    if [ "$tool" = pip ]; then
        set -- "$python" -I -m pip install --quiet --disable-pip-version-check --no-input --no-deps "$@"
    else
        set -- "$uv" pip install --quiet --python "$python" --no-deps "$@"
    fi
    tell "" "$@"
}
[ -z "$links" ] || set -- --find-links "$links" "$@"
if [ "$index" = index ] && [ -n "$links" ]; then # what the links lack comes from the index
    install --no-index "$@" 2>/dev/null && exit
fi
[ "$index" = index ] || set -- --no-index "$@"
install "$@"
