# What a transfer needs of a machine; says in one sentence what is lacking.
lacking=
for command in rsync find xargs sort stat; do
    command -v $command >/dev/null 2>&1 || lacking="$lacking $command"
done
find / -maxdepth 0 -printf '' >/dev/null 2>&1 || lacking="$lacking find-of-GNU"
df -B1 --output=avail / >/dev/null 2>&1 || lacking="$lacking df-of-GNU"
[ -z "$lacking" ] || {
    echo "a transfer needs$lacking there: install rsync, findutils and coreutils" >&2
    exit 66
}
