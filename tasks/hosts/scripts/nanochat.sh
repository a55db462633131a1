# nanochat at one commit in folder/nanochat, with its own environment in folder/nanochat/.venv.
# $1: folder  $2: git URL, or path of an uploaded archive  $3: commit  $4: prepared environment or ""
# $5: extra of its lock file: gpu or cpu  $6: uv or ""  $7: python to install uv with
folder=$1 source=$2 commit=$3 prepared=$4 extra=$5
checkout=$folder/nanochat made=$folder/state/nanochat.made
if [ -e "$checkout" ] && [ ! -e "$made" ] && [ ! -e "$folder/state/nanochat" ]; then
    echo "$checkout is not ours to change: move it away" >&2
    exit 66
fi
if [ -f "$source" ]; then
    rm -rf "$checkout.new" && mkdir -p "$checkout.new" && tar -xf "$source" -C "$checkout.new" || exit
    tree=
    for scripts in "$checkout.new/scripts" "$checkout.new"/*/scripts; do
        [ ! -d "$scripts" ] || tree=${scripts%/scripts}
    done
    [ -n "$tree" ] || { echo "the archive holds no checkout of nanochat" >&2; exit 66; }
    : >"$made" && rm -rf "$checkout" && mv "$tree" "$checkout" && rm -rf "$checkout.new" || exit
else
    if [ ! -d "$checkout/.git" ]; then
        rm -rf "$checkout" "$checkout.new" && git clone --quiet "$source" "$checkout.new" </dev/null &&
            : >"$made" && mv "$checkout.new" "$checkout" || exit
    fi
    cd "$checkout" || exit
    if [ ! -e "$made.changing" ] && [ -n "$(git status --porcelain --untracked-files=no)" ]; then
        echo "$checkout has uncommitted changes: commit them elsewhere or discard them" >&2
        exit 66
    fi
    git cat-file -e "$commit^{commit}" 2>/dev/null || git fetch --quiet origin </dev/null || exit
    # One that is cut leaves half of it, which looks like changes of a person.
    : >"$made.changing" && git -c advice.detachedHead=false checkout --quiet --force "$commit" && rm -f "$made.changing" || exit
fi
cd "$checkout" || exit
if [ -n "$prepared" ]; then
    overlay "$prepared" "$checkout/.venv"
    exit
fi
get_uv "$folder" "$6" "$7" "" || exit
env -u VIRTUAL_ENV "$uv" sync --quiet --frozen --no-dev --extra "$extra" </dev/null
