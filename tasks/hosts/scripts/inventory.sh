# SHA-256 of files below a folder, one line `hash  ./name` a file. $1: folder  $2: files a process  $3: small, for small files, or ""
# Names, each from `./`, come as a NUL-separated list. openssl uses the processor's SHA instructions (several times as fast), but
# starts slowly, and mixes its lines with another's when it writes many; sha256sum is there always.
cd "$1" || exit
for hash in ${3:+sha256sum} 'openssl dgst -r -sha256' sha256sum ''; do
    [ "$(printf abc | $hash 2>/dev/null | cut -c 1-64)" != ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad ] || break
done
[ -n "$hash" ] || {
    echo "neither openssl nor sha256sum works there: install coreutils" >&2
    exit 66
}
[ "$3 $hash" != "small sha256sum" ] || set -- "$1" $(($2 * 16))
xargs -0 -r -n "$2" -P 4 $hash
