"""Artifacts and folders of shards from one machine to another: in parallel, resumable, every file verified.

An artifact arrives in a work directory of its own beside its place (`.name.ID.incoming`), file by file. A file counts when its SHA-256
is the manifest's; one that differs is deleted and sent again. The manifest comes last, then the directory is renamed: what
is visible is whole. A folder without a manifest is listed and hashed at its source first, and joins what is there by file.
"""

import contextlib
import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ChangedError, DamagedError, InputError
from tasks.hosts import bulk
from tasks.hosts.bridge import Bridge, bridge
from tasks.hosts.facts import identify, script
from tasks.hosts.folders import beyond, clear_others, hash_files, join, lacking, listing, replace
from tasks.hosts.hostkeys import installation_folder
from tasks.hosts.machine import LinkError, Local, Machine
from tasks.hosts.route import ssh_environment, ssh_options
from tasks.hosts.ssh import Remote
from tasks.hosts.streams import FAST_SSH, LINK_LOST, RSYNC, Failure, rsync_shell, run_streams, share_out
from tasks.progress import Progress, silent
from tasks.store.access import local_path
from tasks.store.artifact import MANIFEST, FileRecord, Manifest, fingerprint, safe_relative
from tasks.store.locks import locked

log = logging.getLogger(__name__)
ROUNDS = 30
"""How often a link that is cut is tried again with nothing arriving."""
EQUAL = 3
"""How often anything else may fail in the same way."""
PAUSE_SECONDS = 3.0
RESERVE = 256 << 20
FINAL = ("No space left", "ermission denied", "Read-only file system", "quota exceeded")
"""What no second try changes."""


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

    Raises InputError when there is no such folder, it is empty or a part cannot be read, DamagedError for a manifest that cannot
    be read or names what is not there.
    """
    folder, label = source.path(name), source.machine.label
    there = listing(source.machine, folder)
    if not there.files:
        raise InputError(f"{label} has no files in {folder}: check the name and the root.")
    if MANIFEST in there.files:
        text = source.machine.read(f"{folder}/{MANIFEST}")
        files = list(Manifest.from_json(text, f"{label}: {folder}/{MANIFEST}").files)
        for record in files:
            if record.path not in there.everything:
                raise DamagedError(
                    f"{label}: {folder} lacks {record.path}, which its manifest names: rebuild {name} there."
                )
            if record.path in there.others:
                raise InputError(
                    f"{label}: {folder}/{record.path} is a {there.others[record.path]}: put the file itself there."
                )
        return files, text
    for path in there.files:
        safe_relative(path)
    if there.left_out:
        log.warning("%s: of %s are not carried: %s.", label, folder, there.left_out)
    hashes = hash_files(source.machine, folder, [FileRecord(path, f.bytes, "") for path, f in there.files.items()])
    gone = there.files.keys() - hashes.keys()
    if gone:
        raise ChangedError(
            f"{label}: {folder}/{min(gone)} went away while it was read: run again when nothing writes there."
        )
    return [FileRecord(path, f.bytes, hashes[path]) for path, f in sorted(there.files.items())], None


def transfer(source: Place, target: Place, name: str, *, streams: int = 4, progress: Progress = silent) -> Moved:
    """Bring the artifact or folder `name` from one place to another, or complete what an earlier attempt brought.

    An artifact replaces one of that name, and what else lies in its folder stays. A folder without a manifest joins the one that is there by file: nothing that is
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
    for end in (source, target):
        end.machine.run(script("tools.sh"))
    files, manifest = inventory(source, name)
    total, count, kept = sum(record.bytes for record in files), len(files), []
    if manifest is None:
        files, kept = lacking(source.machine, source.path(name), target.machine, final, files)
        for path in kept:
            log.warning("%s has a newer %s/%s, which stays.", target.machine.label, final, path)
    if not files or (manifest is not None and target.machine.read(f"{final}/{MANIFEST}") == manifest):
        return Moved(name, count, total, 0, 0, 0, round(time.monotonic() - started, 2), _way("already there", kept))
    if manifest is not None:
        beyond(target.machine, final, files)  # what stands in the way is said before anything is sent
    incoming = _incoming(source, name, final)
    target.machine.run('mkdir -p "$1"', incoming)
    clear_others(target.machine, incoming, files)
    state = _State(target.machine, incoming, files)
    missing = state.missing()
    needed = sum(record.bytes for record in missing)
    _check_disk(target, incoming, needed - state.partial(missing))
    way, rounds, sending, patience = "nothing to send", 0, 0.0, _Patience(source, target, name, manifest is not None)
    with contextlib.ExitStack() as stack:
        road = _road(source, target, stack) if missing else None
        while missing:
            rounds += 1
            way = road.way
            before = len(missing), -state.partial(missing)
            report = _report(progress, name, total, total - sum(record.bytes for record in missing))
            begun = time.monotonic()
            failures = _send(road, source.path(name), incoming, missing, streams, report)
            sending += time.monotonic() - begun
            try:
                missing = state.missing()
                forward = (len(missing), -state.partial(missing)) < before
            except LinkError as error:
                failures, forward = [*failures, Failure(LINK_LOST[-1], str(error))], False
            for failure in failures:
                log.warning("%s: a stream ended early (%s).", name, failure.text.rstrip("."))
            if missing:
                patience.judge(failures, missing, forward)
    if manifest is not None:
        target.machine.put(manifest, f"{incoming}/{MANIFEST}", 0o644)
    if manifest is None:
        join(target.machine, incoming, final, files)
        lost = {record.path for record in files} - listing(target.machine, final, follow=True).everything
    else:
        replace(target.machine, incoming, final, files)  # by one rename, after which another host may replace it
        lost = set()
    if lost:
        raise ChangedError(f"{target.machine.label}: {final}/{min(lost)} went away after it had arrived: run again.")
    progress(f"transfer {name}", total, total, {})
    seconds = time.monotonic() - started
    return Moved(name, count, total, needed, state.again, rounds, round(seconds, 2), _way(way, kept), round(sending, 2))


def _incoming(source: Place, name: str, final: str) -> str:
    """The work directory beside `final`: the same for every attempt of one installation with one source, and nobody else's."""
    parent, _, leaf = final.rpartition("/")
    parties = (socket.gethostname(), str(installation_folder()), source.machine.label, source.path(name))
    return f"{parent}/.{leaf}.{fingerprint(*parties)}.incoming"


class _Patience:
    """How long a transfer that gets nowhere is tried again: a link that is cut for long, anything else EQUAL times."""

    def __init__(self, source: Place, target: Place, name: str, artifact: bool):
        self.source, self.target, self.name, self.artifact = source, target, name, artifact
        self.stalled, self.equal, self.last = 0, 0, ""

    def judge(self, failures: Sequence[Failure], missing: Sequence[FileRecord], forward: bool) -> None:
        """Return for another try, after a pause where something failed; else raise what ends the transfer."""
        if forward:
            self.stalled = self.equal = 0
            return
        ends = f"{self.name} does not get from {self.source.machine.label} to {self.target.machine.label}"
        said = failures[0].text.rstrip(".") if failures else f"{missing[0].path} arrives with other content"
        if not any(failure.of_link for failure in failures):
            self._blame_source(missing)
            self.equal = self.equal + 1 if said == self.last else 1
            if self.equal >= EQUAL or any(word in said for word in FINAL):
                raise InputError(f"{ends} ({said}): check the disks and the rights on both, then run again.")
        self.last = said
        self.stalled += 1
        if self.stalled >= ROUNDS:
            raise LinkError(f"{ends}: {said}.")
        if failures:
            time.sleep(PAUSE_SECONDS)

    def _blame_source(self, missing: Sequence[FileRecord]) -> None:
        """Raise DamagedError when what is to be sent differs from the manifest already where it comes from."""
        folder, label = self.source.path(self.name), self.source.machine.label
        hashes = hash_files(self.source.machine, folder, missing)
        for record in missing:
            if hashes.get(record.path) == record.sha256:
                continue
            if self.artifact:
                raise DamagedError(
                    f"{label}: {folder}/{record.path} is not what its manifest says: rebuild {self.name} there."
                )
            raise ChangedError(
                f"{label}: {folder}/{record.path} changes while it is sent: run again when nothing writes there."
            )


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
            rsync = [*RSYNC, "-s", "-e", "{shell}", f"{folder}/", f"{{target}}:{incoming}/"]
            return self.bridge.command(rsync)
        remotes = [place.machine for place in (self.source, self.target) if isinstance(place.machine, Remote)]
        if not remotes:
            return [*RSYNC, "--", f"{folder}/", f"{incoming}/"]
        remote = remotes[0]
        address = f"{remote.route.place}:"
        ssh = rsync_shell(["ssh", *ssh_options(remote.route, remote.known), *FAST_SSH])
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
) -> list[Failure]:
    groups = share_out(files, streams)
    environment = road.bridge.environment if road.bridge else ssh_environment()
    return run_streams([road.command(folder, incoming) for _ in groups], groups, environment, report)


def _check_disk(target: Place, folder: str, needed: int) -> None:
    free = int(target.machine.run('df -B1 --output=avail "$1" | tail -n 1', folder).out)
    if needed + RESERVE * bool(needed) > free:
        raise InputError(
            f"{target.machine.label} has {free / 1e9:.1f} GB free for {folder} and {needed / 1e9:.1f} GB are to come: free some "
            "space there, or give a root on a larger disk."
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
