# nanochat at one commit in folder/nanochat, with its own environment in folder/nanochat/.venv.
# $1: folder  $2: git URL, or path of an uploaded archive  $3: commit  $4: prepared environment or ""
# $5: extra of its lock file: gpu or cpu  $6: uv or ""  $7: python to install uv with
folder=$1 source=$2 commit=$3 prepared=$4 extra=$5
checkout=$folder/nanochat
if [ -f "$source" ]; then
    rm -rf "$checkout.new" && mkdir -p "$checkout.new" && tar -xf "$source" -C "$checkout.new" || exit
    tree=
    for scripts in "$checkout.new/scripts" "$checkout.new"/*/scripts; do
        [ ! -d "$scripts" ] || tree=${scripts%/scripts}
    done
    [ -n "$tree" ] || { echo "the archive holds no checkout of nanochat" >&2; exit 66; }
    rm -rf "$checkout" && mv "$tree" "$checkout" && rm -rf "$checkout.new" || exit
else
    [ -d "$checkout/.git" ] || { rm -rf "$checkout" && git clone --quiet "$source" "$checkout" </dev/null; } || exit
    cd "$checkout" || exit
    git cat-file -e "$commit^{commit}" 2>/dev/null || git fetch --quiet origin </dev/null || exit
    git -c advice.detachedHead=false checkout --quiet --force "$commit" || exit
fi
cd "$checkout" || exit
if [ -n "$prepared" ]; then
    overlay "$prepared" "$checkout/.venv"
    exit
fi
get_uv "$folder" "$6" "$7" "" || exit
env -u VIRTUAL_ENV "$uv" sync --quiet --frozen --no-dev --extra "$extra" </dev/null
