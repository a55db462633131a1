"""What lies in a folder of a machine, and how what was brought joins what is there: by file, nothing of others removed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tasks.errors import ChangedError, InputError
from tasks.hosts.facts import script
from tasks.hosts.machine import CommandError, Machine, Result
from tasks.store.artifact import MANIFEST, FileRecord, Manifest

T = TypeVar("T")
HASH_BYTES_PER_SECOND = 20_000_000
"""A slow disk, for time limits."""
FILES_PER_SECOND = 100
SMALL = 1_000_000
"""Bytes of a file below which starting a program takes longer than hashing."""
TRIES = 20
RESTLESS = "{}: {} is replaced by somebody else all the time: run again."
NAMED = 3
"""How many files a message names."""
HASH_LINE = 68
"""Characters of a line of hashes beside the name."""
PIPE_BYTES = 4_000
"""What several processes may write to one pipe without mixing their lines."""
KINDS = {"l": "symbolic link", "p": "pipe", "s": "socket", "b": "device", "c": "device"}
LIST = r"""
[ -d "$1" ] || exit 0
cd "$1" && find ${2:+-L} . -mindepth 1 ! -type d -printf '%y %s %T@ %P\0'"""
TURN = r"""
turn() { # one change at a time in a folder, whoever makes it
    command -v flock >/dev/null 2>&1 || return 0
    exec 9<"$1" && flock -w 600 9
}
"""
CHANGED = 75
"""Exit status of REPLACE when the folder is another one than was looked at."""
STATE = 'stat -c "%i %z" -- "$1" 2>/dev/null || echo none'
"""Which folder has this name, and when something came or went there: another one after each replacement."""
REPLACE = f"""{TURN}
sync -f "$1" 2>/dev/null
turn "$(dirname "$2")" || exit
if [ -d "$3" ]; then # an attempt was cut between its two renames, or after them
    if [ -e "$2" ]; then rm -rf "$3"; else mv -T "$3" "$2"; fi || exit
fi
[ "$(stat -c "%i %z" -- "$2" 2>/dev/null || echo none)" = "$4" ] || exit {CHANGED}
[ ! -e "$2" ] || mv -T "$2" "$3" || exit
mv -T "$1" "$2" || {{ status=$?; [ ! -d "$3" ] || mv -T "$3" "$2"; exit $status; }}
rm -rf "$3"
"""
JOIN = rf"""{TURN}
incoming=$1 to=$2 own=$3
sync -f "$incoming" 2>/dev/null
mkdir -p -- "$to" && turn "$to" && cd "$incoming" || exit
here=$(stat -c %d .)
bring() {{ # CONDITION...: the files that meet it, folder by folder, each by one rename
    find . -type f "$@" -printf '%h\n' | sort -u | while IFS= read -r folder; do
        final=$to/$folder
        mkdir -p -- "$final" || exit
        if [ "$(stat -c %d -- "$final")" = "$here" ]; then
            find "$folder" -maxdepth 1 -type f "$@" -exec mv -f -t "$final" -- {{}} + || exit
        else # on another disk: beside its place first
            rm -rf "$final/$own" && mkdir "$final/$own" || exit
            find "$folder" -maxdepth 1 -type f "$@" -exec mv -f -t "$final/$own" -- {{}} + || exit
            find "$final/$own" -type f -exec mv -f -t "$final" -- {{}} + && rmdir "$final/$own" || exit
        fi
    done
}}
bring ! -name {MANIFEST} && bring -name {MANIFEST} && cd / && rm -rf "$incoming"
"""
LINK = r"""
cd "$1" && xargs -0 -r sh -c '
to=$1; shift
for path; do
    mkdir -p -- "$to/$(dirname -- "./$path")" && ln -f -- "./$path" "$to/$path" || exit 255
done' sh "$2"
"""


@dataclass(frozen=True)
class Listed:
    """A file as a folder lists it: its size and when it changed (Unix seconds)."""

    bytes: int
    changed: float


@dataclass(frozen=True)
class Listing:
    """A folder: its visible `files` by relative path, and what is not carried: `hidden` files, and `others`, each with its kind."""

    files: dict[str, Listed]
    hidden: frozenset[str]
    others: dict[str, str]

    @property
    def everything(self) -> set[str]:
        return {*self.files, *self.hidden, *self.others}

    @property
    def left_out(self) -> str:
        """What is not carried, in words; empty when everything is."""
        found = [f"{path} ({kind})" for path, kind in sorted(self.others.items())]
        tops = {path[: path.index("/", start)] if "/" in path[start:] else path for path, start in _hidden(self.hidden)}
        return _named([*found, *(f"{path} (hidden)" for path in sorted(tops))])


def _hidden(paths: Iterable[str]) -> Iterator[tuple[str, int]]:
    for path in paths:
        yield path, 0 if path.startswith(".") else path.index("/.") + 1


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def listing(machine: Machine, folder: str, follow: bool = False) -> Listing:
    """What lies in a folder, nothing when it is not there. `follow`: what symbolic links lead to, too.

    Raises InputError when a part of it cannot be read, or a name is not UTF-8.
    """
    seen = machine.run(LIST, folder, "follow" if follow else "", timeout=600, check=False)
    if seen.status:
        raise (InputError if "ermission denied" in seen.err else CommandError)(
            f"{machine.label} cannot list all of {folder} ({seen.last}): change the owner or the mode of what is there."
        )
    files, hidden, others = {}, set(), {}
    for entry in seen.out.split("\0")[:-1]:
        kind, size, changed, path = entry.split(" ", 3)
        if "\ufffd" in path:
            raise InputError(f"{machine.label} has a file in {folder} whose name is not UTF-8 ({path!r}): rename it.")
        if f"/{path}".find("/.") >= 0:
            hidden.add(path)
        elif kind != "f":
            others[path] = KINDS.get(kind, "no regular file")
        else:
            files[path] = Listed(int(size), float(changed))
    return Listing(files, frozenset(hidden), others)


def hash_files(machine: Machine, folder: str, files: Sequence[FileRecord]) -> dict[str, str]:
    """SHA-256 of those of the files that are there, by path. Raises InputError for one that cannot be read."""
    if not files:
        return {}
    names = "\0".join(f"./{record.path}" for record in files).encode()
    longest = max(len(record.path.encode()) for record in files)
    together = max(1, min(PIPE_BYTES // (HASH_LINE + longest), len(files) // 16))
    total = sum(record.bytes for record in files)
    small = "small" if total < SMALL * len(files) else ""
    limit = 120 + total / HASH_BYTES_PER_SECOND + len(files) / FILES_PER_SECOND
    seen = machine.run(script("inventory.sh"), folder, together, small, stdin=names, timeout=limit, check=False)
    hashes = {line[HASH_LINE:]: line[:64] for line in seen.out.splitlines()}
    unread = [record.path for record in files if record.path not in hashes]
    if unread and "ermission denied" in seen.err:
        raise InputError(f"{machine.label} cannot read {folder}/{unread[0]}: change its owner or mode.")
    if unread and "No such file" not in seen.err:
        raise CommandError(f"{machine.label}: {folder}/{unread[0]} could not be hashed ({seen.last}).")
    return hashes


def lacking(
    source: Machine, folder: str, target: Machine, final: str, files: Sequence[FileRecord]
) -> tuple[list[FileRecord], list[str]]:
    """(files that `final` lacks, files of which it has a newer version, which stay), of those that `folder` has.

    An artifact inside the folder is one thing: its files go together. Raises InputError naming what is at the target with other
    content.
    """
    there = listing(target, final, follow=True).files
    if not there:
        return list(files), []
    here = listing(source, folder).files
    same_size = [record for record in files if record.path in there and there[record.path].bytes == record.bytes]
    hashes = hash_files(target, final, same_size)
    other = {record.path for record in files if record.path in there and hashes.get(record.path) != record.sha256}
    manifests = {record.path for record in files if record.path.endswith(f"/{MANIFEST}")}
    artifacts = tuple(path.removesuffix(MANIFEST) for path in manifests)
    paths = {record.path for record in files}
    conflicts = sorted(path.removesuffix(f"/{MANIFEST}") for path in manifests & other)
    refuse(target, final, conflicts + sorted((paths & _folders(there)) | (_folders(paths) & there.keys())))
    loose = {path for path in other if not path.startswith(artifacts)} if artifacts else other
    kept = {path for path in loose if there[path].changed >= here[path].changed}
    wanted = [r for r in files if (r.path not in there or r.path in other) and r.path not in kept]
    return wanted, sorted(kept)


def refuse(target: Machine, final: str, conflicts: Sequence[str]) -> None:
    """Raise InputError when there are names under which the target has content of its own."""
    if conflicts:
        raise InputError(
            f"{target.label} has other content in {final} under the names {_named(conflicts)}: move those "
            "away on one of the two machines, or transfer the others by name."
        )


def _folders(paths: Iterable[str]) -> set[str]:
    return {"/".join(parts[:end]) for path in paths for parts in [path.split("/")] for end in range(1, len(parts))}


def beyond(target: Machine, final: str, files: Sequence[FileRecord]) -> list[str]:
    """What the folder of an artifact holds that neither the artifact there nor the one to come has.

    Raises InputError when the folder is no artifact and has files of other content under the names that come.
    """
    return _steady(target, final, lambda _: _beyond(target, final, files))


def _beyond(target: Machine, final: str, files: Sequence[FileRecord]) -> list[str]:
    there = listing(target, final)
    if not there.everything:
        return []
    text = target.read(f"{final}/{MANIFEST}")
    if text:
        own = {record.path for record in Manifest.from_json(text, f"{target.label}: {final}/{MANIFEST}").files}
    else:
        both = [record for record in files if record.path in there.files]
        hashes = hash_files(target, final, both)
        refuse(target, final, [record.path for record in both if hashes.get(record.path) != record.sha256])
        own = set()
    return sorted(there.everything - own - {record.path for record in files} - {MANIFEST})


def clear_others(machine: Machine, incoming: str, files: Sequence[FileRecord]) -> None:
    """Delete what an earlier attempt brought and the source does not have any more."""
    extra = listing(machine, incoming).everything - {record.path for record in files}
    if extra:
        names = "\0".join(extra).encode()
        machine.run('cd "$1" && xargs -0 rm -f --', incoming, stdin=names)


def replace(machine: Machine, incoming: str, final: str, files: Sequence[FileRecord]) -> None:
    """Make `final` what lies in `incoming`, an artifact of these files, and keep what else is there (`beyond`).

    Begun again when the folder changes in between. On an error the folder that was there stays. Raises as `beyond` does.
    """
    old = f"{incoming.removesuffix('.incoming')}.replaced"

    def attempt(seen: str) -> Result:
        if kept := _beyond(machine, final, files):
            machine.run(LINK, final, incoming, stdin="\0".join(kept).encode(), timeout=600)
        return machine.run(REPLACE, incoming, final, old, seen, timeout=700, check=False)

    for _ in range(TRIES):
        done = _steady(machine, final, attempt)
        if done.status == 0:
            return
        if done.status != CHANGED:
            raise CommandError(f"{machine.label}: {done.last.rstrip('.')} (exit status {done.status}).")
    raise ChangedError(RESTLESS.format(machine.label, final))


def _steady(machine: Machine, folder: str, look: Callable[[str], T]) -> T:
    """What `look` says of a folder, which takes its state; what it raises because somebody replaced the folder meanwhile does not count.

    Raises ChangedError when that goes on and on.
    """
    for _ in range(TRIES):
        seen = machine.run(STATE, folder).out.strip()
        try:
            return look(seen)
        except (InputError, CommandError):
            if machine.run(STATE, folder).out.strip() == seen:
                raise
    raise ChangedError(RESTLESS.format(machine.label, folder))


def join(machine: Machine, incoming: str, final: str, files: Sequence[FileRecord]) -> None:
    """Move the files of `incoming` into `final`, each in one step, manifests last."""
    own = incoming.rpartition("/")[2]
    machine.run(JOIN, incoming, final, own, timeout=700 + len(files) / FILES_PER_SECOND)
