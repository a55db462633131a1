# nanochat at one commit in folder/nanochat, with its own environment in folder/nanochat/.venv.
# $1: folder  $2: git URL, or path of an uploaded archive  $3: commit  $4: uv or ""  $5: prepared environment or ""
# $6: extra of its lock file: gpu or cpu
folder=$1 source=$2 commit=$3 uv=$4 prepared=$5 extra=$6
checkout=$folder/nanochat
if [ -f "$source" ]; then
    rm -rf "$checkout.new" && mkdir -p "$checkout.new" || exit
    tar -xf "$source" -C "$checkout.new" || exit
    # An archive holds the tree itself or one folder with the tree.
    if [ ! -d "$checkout.new/nanochat" ] || [ ! -d "$checkout.new/scripts" ]; then
        for inner in "$checkout.new"/*/scripts; do checkout_in=${inner%/scripts}; done
        [ -d "$checkout_in/scripts" ] || { echo "the archive holds no nanochat checkout" >&2; exit 66; }
    fi
    tree=${checkout_in:-$checkout.new}
    rm -rf "$checkout" && mv "$tree" "$checkout" && rm -rf "$checkout.new" || exit
else
    [ -d "$checkout/.git" ] || { rm -rf "$checkout"; git clone --quiet "$source" "$checkout"; } || exit
    cd "$checkout" || exit
    git cat-file -e "$commit^{commit}" 2>/dev/null || git fetch --quiet origin || exit
    git -c advice.detachedHead=false checkout --quiet --force "$commit" || exit
fi
cd "$checkout" || exit
if [ -n "$prepared" ]; then
    rm -rf .venv && cp -a "$folder/venv/." .venv || exit
    "$prepared/bin/python" -m venv --without-pip --upgrade .venv
else
    [ -n "$uv" ] || { echo "nanochat's lock file needs uv" >&2; exit 66; }
    env -u VIRTUAL_ENV "$uv" sync --quiet --frozen --no-dev --extra "$extra" </dev/null
fi
