# SHA-256 of files below a folder, one `hash  name` a record, each ended by NUL. $1: folder; names come as a NUL-separated list.
# Files that are not there are left out; sha256sum -z writes names as they are.
cd "$1" || exit
xargs -0 -r -n 8 -P 4 sh -c 'for f do [ ! -f "$f" ] || printf "%s\0" "$f"; done | xargs -0 -r sha256sum -z --' sh
