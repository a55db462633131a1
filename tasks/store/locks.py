"""Lock files that say who holds them: one writer an artifact, one attempt at a run, one training a GPU whatever its engine.

The kernel drops a lock when the last process that has its descriptor is gone, however that process ended. `locked` waits as
long as it takes; `hold` gives up after a while and names the holder.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import random
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.errors import BusyError, InputError

PATIENCE = 60.0
"""Seconds to wait for a holder that may be writing its last checkpoint: one that was cancelled needs up to half a minute."""
GPU_LOCKS = Path("/tmp/fabrating-locks")
"""The locks of GPUs lie in `/tmp/fabrating-locks-<user id>`, whatever TMPDIR says: in one folder for each account, which alone
writes there. A GPU is in use if any account's file is locked, so another's is opened too, but only to look.
"""
LINKS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""A link where a lock file should be is not followed, a pipe not waited for."""

log = logging.getLogger(__name__)


def gpu_lock(uuid: str) -> Path:
    """This account's lock file of a GPU. By its UUID: CUDA_VISIBLE_DEVICES may number it otherwise in each process."""
    return _gpu_locks(os.getuid()) / f"gpu-{uuid}.lock"


def turn_lock(place: str) -> Path:
    """The lock file of whoever is next to train at a place of this host."""
    return _gpu_locks(os.getuid()) / f"turn-{place}.lock"


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None] = log.info) -> Iterator[int]:
    """Hold the lock file `path`; yields its descriptor. Waits for another holder, however long, and says so once."""
    with _opened(path) as handle:
        if not _taken(handle):
            say(f"Waiting for {path.name}, in use by {holder(path)}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        _sign(handle)
        yield handle


@contextlib.contextmanager
def shared(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path` together with others. Yields what tells whether nobody else holds it; from then on nobody can."""

    def alone() -> bool:
        return _taken(handle)

    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield alone


@contextlib.contextmanager
def hold(path: Path, what: str, run: str, patience: float = PATIENCE) -> Iterator[int]:
    """Hold the lock file `path`, which stands for `what` (words for a person), on behalf of a run.

    Yields the descriptor; a child that inherits it keeps the lock. Raises BusyError naming the holder after `patience` seconds.
    """
    with _opened(path) as handle:
        deadline = time.monotonic() + patience
        while (other := _other_holder(handle, path)) is not None:
            if time.monotonic() >= deadline:
                raise BusyError(f"{what} is in use by {holder(other)}: wait for it or stop it, then run again.")
            time.sleep(random.uniform(0.3, 0.7))  # two accounts that found each other waiting do not do so again
        _sign(handle, run=run)
        yield handle


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a lock file, which is made if need be. Raises InputError for what is no file of ours to write."""
    own = path.parent == _gpu_locks(os.getuid())
    path.parent.mkdir(parents=True, exist_ok=True)
    if own:
        if not _is_folder_of(os.getuid(), path.parent):
            raise InputError(f"{path.parent} is not this account's own folder: have it removed, then run again.")
        path.parent.chmod(0o755)  # whatever the umask: others look, and write nothing
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | LINKS, 0o666)
    except PermissionError:  # another account's file can be locked, but not written
        handle = os.open(path, os.O_RDONLY | LINKS)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"The lock file {path} is a link: remove it, then run again.") from error
    try:
        if own:
            os.fchmod(handle, 0o644)
        yield handle
    finally:
        os.close(handle)


def _gpu_locks(account: int) -> Path:
    return GPU_LOCKS.with_name(f"{GPU_LOCKS.name}-{account}")


def _is_folder_of(account: int, path: Path) -> bool:
    """Whether this is a folder of the account, and no link to one."""
    found = path.lstat()
    return found.st_uid == account and stat.S_ISDIR(found.st_mode)


def _other_holder(handle: int, path: Path) -> Path | None:
    """The lock file through which somebody else holds what `path` stands for; None: the lock is this process's now."""
    if not _taken(handle):
        return path
    if path.parent == _gpu_locks(os.getuid()):
        for folder in GPU_LOCKS.parent.glob(f"{GPU_LOCKS.name}-*"):
            if folder != path.parent and _in_use(folder / path.name):
                fcntl.flock(handle, fcntl.LOCK_UN)
                return folder / path.name
    return None


def _in_use(path: Path) -> bool:
    """Whether an account holds its own lock file of a GPU; what is no file in a folder of the same account counts for nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | LINKS)
    except OSError:
        return False
    try:
        found = os.fstat(handle)
        own = stat.S_ISREG(found.st_mode) and _is_folder_of(found.st_uid, path.parent)
        return own and not _taken(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _taken(handle: int, way: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock was free and is now this process's."""
    try:
        fcntl.flock(handle, way | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _sign(handle: int, **on_behalf_of: str) -> None:
    """Write into the lock file who holds it."""
    content = {**on_behalf_of, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(content).encode(), 0)


def holder(path: Path) -> str:
    """Who holds a lock file, in words: run r (process 17 on gpu1 since 2026-01-31 12:00:00)."""
    try:
        handle = os.open(path, os.O_RDONLY | LINKS)
        with os.fdopen(handle, "rb") as file:
            holder = json.loads(file.read(4_096))
        process = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        return f"run {holder['run']} ({process})" if "run" in holder else process
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
