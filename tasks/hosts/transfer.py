"""Artifacts and folders of shards from one machine to another: in parallel, resumable, every file verified.

An artifact arrives in a work directory beside its place (`.name.incoming`), file by file. A file counts when its SHA-256
is the manifest's; one that differs is deleted and sent again. The manifest comes last, then the directory is renamed: what
is visible is whole. A folder without a manifest is listed and hashed at its source first, and joins what is there by file.
"""

import contextlib
import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import DamagedError, InputError
from tasks.hosts import bulk
from tasks.hosts.bridge import Bridge, bridge
from tasks.hosts.facts import identify
from tasks.hosts.folders import clear_others, hash_files, join, lacking, listing, replace
from tasks.hosts.hostkeys import installation_folder
from tasks.hosts.ssh import LinkError, Local, Machine, Remote, ssh_options
from tasks.hosts.streams import FAST_SSH, RSYNC, run_streams, share_out
from tasks.progress import Progress, silent
from tasks.store.access import local_path
from tasks.store.artifact import MANIFEST, FileRecord, Manifest, safe_relative
from tasks.store.locks import locked

log = logging.getLogger(__name__)
ROUNDS = 30
PAUSE_SECONDS = 3.0
RESERVE = 256 << 20


@dataclass(frozen=True)
class Place:
    """A root folder on a machine."""

    machine: Machine
    root: str

    def path(self, name: str) -> str:
        """The folder of an artifact. Raises InputError for a name that leaves the root."""
        return f"{self.root.rstrip('/')}/{safe_relative(name)}"


@dataclass(frozen=True)
class Moved:
    """What a transfer did: `bytes` of `files` files, of which `sent` bytes were missing; `way`: how they travelled.

    `seconds` is all of it, `sending_seconds` the part in which rsync ran: the rest is listing and verifying.
    """

    name: str
    files: int
    bytes: int
    sent: int
    again: int
    rounds: int
    seconds: float
    way: str
    sending_seconds: float = 0.0


def place(machine: Machine, root: str) -> Place:
    """A place with its root made absolute: on a host below the account's home directory, here below the current one."""
    folder = folder_of(root)
    if folder is None:
        raise InputError(f"The root {root} is a blob store: give a folder.")
    if isinstance(machine, Local):
        return Place(machine, str(Path(folder).expanduser().absolute()))
    below_home = 'case $1 in /*) echo "$1" ;; *) echo "${HOME%/}/$1" ;; esac'
    return Place(machine, machine.run(below_home, folder.removeprefix("~/")).out.rstrip("\n"))


def folder_of(root: str) -> str | None:
    """The folder that a root names on its machine, by a path or a `file://` URL; None for a blob store.

    Raises InputError for a scheme that nobody knows.
    """
    if "://" not in root:
        return root
    folder = local_path(root)
    return None if folder is None else str(folder)


def inventory(source: Place, name: str) -> tuple[list[FileRecord], str | None]:
    """(files, manifest as text) of an artifact; a folder without a manifest is listed and hashed.

    Raises InputError when there is no such folder or it is empty, DamagedError for a manifest that cannot be read.
    """
    folder = source.path(name)
    sizes = {path: found.bytes for path, found in listing(source.machine, folder).items()}
    if not sizes:
        raise InputError(f"{source.machine.label} has no files in {folder}: check the name and the root.")
    if MANIFEST in sizes:
        text = source.machine.read(f"{folder}/{MANIFEST}")
        return list(Manifest.from_json(text, f"{source.machine.label}: {folder}/{MANIFEST}").files), text
    for path in sizes:
        safe_relative(path)
    hashes = hash_files(source.machine, folder, [FileRecord(path, size, "") for path, size in sizes.items()])
    return [FileRecord(path, size, hashes[path]) for path, size in sorted(sizes.items())], None


def transfer(source: Place, target: Place, name: str, *, streams: int = 4, progress: Progress = silent) -> Moved:
    """Bring the artifact or folder `name` from one place to another, or complete what an earlier attempt brought.

    An artifact replaces one of that name. A folder without a manifest joins the one that is there by file: nothing that is
    there only is lost, and a newer version of a file stays. A lost link is waited for and the transfer continued. Transfers
    from here to one place take turns.

    Raises InputError when the source has no such files, an artifact inside a folder has other content at the target, the
    target's disk is too small or the hosts cannot reach each other; DamagedError when the source's own files differ from its
    manifest; LinkError when the link stays away.
    """
    final = target.machine.run('readlink -f "$1" || printf "%s\\n" "$1"', target.path(name)).out.rstrip("\n")
    turn = hashlib.sha256(f"{target.machine.label}\n{final}".encode()).hexdigest()[:16]
    with locked(installation_folder() / "locks" / f"transfer-{turn}.lock"):
        return _transfer(source, target, name, final, streams, progress)


def _transfer(source: Place, target: Place, name: str, final: str, streams: int, progress: Progress) -> Moved:
    started = time.monotonic()
    files, manifest = inventory(source, name)
    total, count, kept = sum(record.bytes for record in files), len(files), []
    if manifest is None:
        files, kept = lacking(source.machine, source.path(name), target.machine, final, files)
        for path in kept:
            log.warning("%s has a newer %s/%s, which stays.", target.machine.label, final, path)
    if not files or (manifest is not None and target.machine.read(f"{final}/{MANIFEST}") == manifest):
        return Moved(name, count, total, 0, 0, 0, round(time.monotonic() - started, 2), _way("already there", kept))
    parent, _, leaf = final.rpartition("/")
    incoming = f"{parent}/.{leaf}.incoming"
    target.machine.run('mkdir -p "$1"', incoming)
    clear_others(target.machine, incoming, files)
    state = _State(target.machine, incoming, files)
    missing = state.missing()
    needed = sum(record.bytes for record in missing)
    _check_disk(target, incoming, needed - state.partial(missing))
    way, rounds, failures, sending = "nothing to send", 0, 0, 0.0
    with contextlib.ExitStack() as stack:
        road = _road(source, target, stack) if missing else None
        while missing:
            rounds += 1
            way = road.way
            before = len(missing)
            report = _report(progress, name, total, total - sum(record.bytes for record in missing))
            begun = time.monotonic()
            problems = _send(road, source.path(name), incoming, missing, streams, report)
            sending += time.monotonic() - begun
            try:
                missing = state.missing()
            except LinkError as error:
                problems.append(str(error))
            if missing and not problems and len(missing) == before:
                _blame_source(source, name, missing)
            failures = failures + 1 if problems and len(missing) == before else 0
            if failures >= ROUNDS:
                raise LinkError(
                    f"{name} does not get from {source.machine.label} to {target.machine.label}: {problems[0]}."
                )
            if missing and problems:
                time.sleep(PAUSE_SECONDS)
    if manifest is not None:
        target.machine.put(manifest, f"{incoming}/{MANIFEST}", 0o644)
    if manifest is None and target.machine.run('[ -e "$1" ]', final, check=False).status == 0:
        join(target.machine, incoming, final, files)
    else:
        replace(target.machine, incoming, final)
    progress(f"transfer {name}", total, total, {})
    seconds = time.monotonic() - started
    return Moved(name, count, total, needed, state.again, rounds, round(seconds, 2), _way(way, kept), round(sending, 2))


def _way(way: str, kept: Sequence[str]) -> str:
    return f"{way}; {len(kept)} newer files there were kept" if kept else way


class _State:
    """What has arrived: a file that was found right once is not hashed again. `again` counts files that arrived wrong."""

    def __init__(self, machine: Machine, folder: str, files: Sequence[FileRecord]):
        self.machine, self.folder, self.files = machine, folder, files
        self.right: set[str] = set()
        self.again = 0

    def missing(self) -> list[FileRecord]:
        """The files that are not there yet; those of the right size with other contents are deleted."""
        sizes = self._sizes()
        open_files = [record for record in self.files if record.path not in self.right]
        whole = [record for record in open_files if sizes.get(record.path, -1) >= record.bytes]
        hashes = hash_files(self.machine, self.folder, whole)
        wrong = [record for record in whole if hashes.get(record.path) != record.sha256]
        self.right |= {record.path for record in whole} - {record.path for record in wrong}
        if wrong:
            self.again += len(wrong)
            names = "\0".join(record.path for record in wrong).encode()
            self.machine.run('cd "$1" && xargs -0 rm -f --', self.folder, stdin=names)
        return [record for record in self.files if record.path not in self.right]

    def partial(self, files: Iterable[FileRecord]) -> int:
        """Bytes that are there of files that are not complete."""
        sizes = self._sizes()
        return sum(min(sizes.get(record.path, 0), record.bytes) for record in files)

    def _sizes(self) -> dict[str, int]:
        listed = self.machine.run('cd "$1" && find . -type f -printf "%s %P\\0"', self.folder).out
        return {path: int(size) for size, _, path in (entry.partition(" ") for entry in listed.split("\0")[:-1])}


def _report(progress: Progress, name: str, total: int, start: int) -> Callable[[int], None]:
    """Tells `progress` of the bytes of a round, `start` of which were there before it."""
    return lambda sent: progress(f"transfer {name}", min(start + sent, total), total, {})


@dataclass(frozen=True)
class _Road:
    """How rsync is started for a pair of places; `bridge` between two hosts."""

    source: Place
    target: Place
    way: str
    bridge: Bridge | None = None

    def command(self, folder: str, incoming: str) -> list[str]:
        """One stream's command, which reads the names of files from its input."""
        if self.bridge is not None:
            rsync = [*RSYNC, "-s", "-e", "{ssh}", f"{folder}/", f"{{target}}:{incoming}/"]
            return self.bridge.command(rsync)
        remotes = [place.machine for place in (self.source, self.target) if isinstance(place.machine, Remote)]
        if not remotes:
            return [*RSYNC, "--", f"{folder}/", f"{incoming}/"]
        remote = remotes[0]
        address = f"{remote.host.user}@{remote.host.address}:"
        ssh = shlex.join(["ssh", *ssh_options(remote.host, remote.known), *FAST_SSH])
        far_source = isinstance(self.source.machine, Remote)
        ends = [f"{address}{folder}/", f"{incoming}/"] if far_source else [f"{folder}/", f"{address}{incoming}/"]
        return [*RSYNC, "-s", "-e", ssh, *ends]


def _road(source: Place, target: Place, stack: contextlib.ExitStack) -> _Road:
    if isinstance(source.machine, Remote) and isinstance(target.machine, Remote):
        made = stack.enter_context(bridge(source.machine, target.machine))
        return _Road(source, target, "through this machine" if made.relayed else "directly", made)
    for machine in (source.machine, target.machine):
        if isinstance(machine, Remote):
            machine.connect()
    return _Road(source, target, "from here" if isinstance(source.machine, Local) else "to here")


def _send(
    road: _Road, folder: str, incoming: str, files: Sequence[FileRecord], streams: int, report: Callable[[int], None]
) -> list[str]:
    groups = share_out(files, streams)
    environment = road.bridge.environment if road.bridge else dict(os.environ)
    return run_streams([road.command(folder, incoming) for _ in groups], groups, environment, report)


def _check_disk(target: Place, folder: str, needed: int) -> None:
    free = int(target.machine.run('df -B1 --output=avail "$1" | tail -n 1', folder).out)
    if needed + RESERVE * bool(needed) > free:
        raise InputError(
            f"{target.machine.label} has {free / 1e9:.1f} GB free for {folder} and {needed / 1e9:.1f} GB are to come: free some "
            "space there, or give a root on a larger disk."
        )


def _blame_source(source: Place, name: str, missing: Sequence[FileRecord]) -> None:
    """Raise DamagedError when what is sent again and again differs from the manifest already where it comes from."""
    hashes = hash_files(source.machine, source.path(name), missing)
    for record in missing:
        if hashes.get(record.path) != record.sha256:
            raise DamagedError(
                f"{source.machine.label}: {source.path(name)}/{record.path} is not what its manifest says: rebuild {name} there."
            )


BULK = (
    'cd "$1" && set -a && . ./secrets.env && set +a && exec ./venv/bin/python -m tasks.hosts.bulk "$2" "$3" "$4" "$5"'
)
BULK_SECONDS = 24 * 3600


def move(
    source: Machine,
    source_root: str,
    target: Machine,
    target_root: str,
    name: str,
    *,
    streams: int = 4,
    progress: Progress = silent,
) -> Moved:
    """`transfer` for roots that may be blob stores (`az://...`): those are read and written by the machine at the other end.

    A host at the other end must be provisioned. Raises InputError when it is not, and when both roots are blob stores.
    """
    stores = [folder_of(root) is None for root in (source_root, target_root)]
    if not any(stores):
        return transfer(
            place(source, source_root), place(target, target_root), name, streams=streams, progress=progress
        )
    if all(stores):
        raise InputError(f"{source_root} and {target_root} are both blob stores: copy between them with azcopy.")
    started = time.monotonic()
    action, url = ("fetch", source_root) if stores[0] else ("send", target_root)
    machine, root = (target, target_root) if stores[0] else (source, source_root)
    if isinstance(machine, Remote):
        folder = identify(machine, machine.host.folder).folder
        there = place(machine, root).root
        if machine.run('[ -x "$1/venv/bin/python" ] && [ -f "$1/secrets.env" ]', folder, check=False).status:
            raise InputError(
                f"{machine.label} has no worker in {folder}, which {url} is reached by: run gpu-host for it, or move by way of a "
                "folder of this machine."
            )
        seen = machine.run(BULK, folder, action, url, name, there, timeout=BULK_SECONDS)
        result = json.loads(seen.out.splitlines()[-1])
    else:
        folder = Path(place(machine, root).root)
        result = {"fetch": bulk.fetch, "send": bulk.send}[action](url, name, folder, progress)
    seconds = round(time.monotonic() - started, 2)
    return Moved(name, 0, result["bytes"], result["sent"], 0, 1, seconds, result["way"])
