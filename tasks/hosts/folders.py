"""What lies in a folder of a machine, and how what was brought joins what is there: by file, nothing of others removed."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import InputError
from tasks.hosts.facts import script
from tasks.hosts.ssh import Machine
from tasks.store.artifact import MANIFEST, FileRecord

HASH_BYTES_PER_SECOND = 20_000_000
"""A slow disk, for time limits."""
FILES_PER_SECOND = 100
NAMED = 3
"""How many conflicts a message names."""
REPLACE = r"""
sync -f "$1" 2>/dev/null
aside=$3
rm -rf "$aside"
[ ! -d "$2" ] || mv "$2" "$aside" || exit
mv "$1" "$2" || { status=$?; [ ! -d "$aside" ] || mv "$aside" "$2"; exit $status; }
rm -rf "$aside"
"""
JOIN = r"""
sync -f "$1" 2>/dev/null
cd "$1" && xargs -0 -r sh -c '
to=$1 last=; shift
for path; do
    folder=$to/$(dirname -- "./$path")
    [ "$folder" = "$last" ] || mkdir -p -- "$folder" || exit 255
    last=$folder
    mv -f -- "./$path" "$to/$path" || exit 255
done' sh "$2" && rm -rf "$1"
"""


@dataclass(frozen=True)
class Listed:
    """A file as a folder lists it: its size and when it changed (Unix seconds)."""

    bytes: int
    changed: float


def listing(machine: Machine, folder: str, follow: bool = False) -> dict[str, Listed]:
    """The visible files of a folder by relative path; {} when it is not there. `follow`: symbolic links, too."""
    find = f'[ -d "$1" ] && cd "$1" && find {"-L " if follow else ""}. -type f -printf "%s %T@ %P\\0"'
    found = {}
    for entry in machine.run(find, folder, check=False).out.split("\0")[:-1]:
        size, changed, path = entry.split(" ", 2)
        if not any(part.startswith(".") for part in path.split("/")):
            found[path] = Listed(int(size), float(changed))
    return found


def hash_files(machine: Machine, folder: str, files: Sequence[FileRecord]) -> dict[str, str]:
    """SHA-256 of those of the files that are there, by path."""
    names = "\0".join(record.path for record in files).encode()
    limit = 120 + sum(record.bytes for record in files) / HASH_BYTES_PER_SECOND
    seen = machine.run(script("inventory.sh"), folder, stdin=names, timeout=limit, check=False)
    entries = (entry.partition("  ") for entry in seen.out.split("\0") if entry)
    return {path: digest for digest, _, path in entries}


def lacking(
    source: Machine, folder: str, target: Machine, final: str, files: Sequence[FileRecord]
) -> tuple[list[FileRecord], list[str]]:
    """(files that `final` lacks, files of which it has a newer version, which stay), of those that `folder` has.

    An artifact inside the folder is one thing: its files go together. Raises InputError naming what is at the target with other
    content.
    """
    there = listing(target, final, follow=True)
    if not there:
        return list(files), []
    here = listing(source, folder)
    same_size = [record for record in files if record.path in there and there[record.path].bytes == record.bytes]
    hashes = hash_files(target, final, same_size)
    other = {record.path for record in files if record.path in there and hashes.get(record.path) != record.sha256}
    manifests = {record.path for record in files if record.path.endswith(f"/{MANIFEST}")}
    artifacts = tuple(path.removesuffix(MANIFEST) for path in manifests)
    folders = {"/".join(parts[:end]) for path in there for parts in [path.split("/")] for end in range(1, len(parts))}
    conflicts = sorted(path.removesuffix(f"/{MANIFEST}") for path in manifests & other)
    conflicts += sorted({record.path for record in files} & folders)
    if conflicts:
        more = f" and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
        raise InputError(
            f"{target.label} has other content in {final} under the names {', '.join(conflicts[:NAMED])}{more}: move those "
            "away on one of the two machines, or transfer the others by name."
        )
    loose = {path for path in other if not path.startswith(artifacts)} if artifacts else other
    kept = {path for path in loose if there[path].changed >= here[path].changed}
    wanted = [r for r in files if (r.path not in there or r.path in other) and r.path not in kept]
    return wanted, sorted(kept)


def clear_others(machine: Machine, incoming: str, files: Sequence[FileRecord]) -> None:
    """Delete what an earlier attempt brought and the source does not have any more."""
    extra = listing(machine, incoming).keys() - {record.path for record in files}
    if extra:
        names = "\0".join(extra).encode()
        machine.run('cd "$1" && xargs -0 rm -f --', incoming, stdin=names)


def replace(machine: Machine, incoming: str, final: str) -> None:
    """Make `final` what lies in `incoming`. On an error the folder that was there stays."""
    parent, _, leaf = final.rpartition("/")
    machine.run(REPLACE, incoming, final, f"{parent}/.{leaf}.replaced", timeout=600)


def join(machine: Machine, incoming: str, final: str, files: Sequence[FileRecord]) -> None:
    """Move files into `final`, each in one step, manifests last."""
    names = sorted((record.path for record in files), key=lambda path: (path.endswith(MANIFEST), path))
    machine.run(JOIN, incoming, final, stdin="\0".join(names).encode(), timeout=600 + len(files) / FILES_PER_SECOND)
