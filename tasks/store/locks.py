"""Lock files that say who holds them: one writer an artifact, one attempt at a run, one training a GPU whatever its engine.

The kernel drops a lock when the last process that has its descriptor is gone, however that process ended. `locked` waits as
long as it takes; `hold` gives up after a while and names the holder.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.errors import BusyError

PATIENCE = 60.0
"""Seconds to wait for a holder that may be writing its last checkpoint: one that was cancelled needs up to half a minute."""
GPU_LOCKS = Path("/tmp/fabrating-locks")
"""The same for all accounts and installations of a host, whatever their TMPDIR: a GPU is no less in use for that."""

log = logging.getLogger(__name__)


def gpu_lock(uuid: str) -> Path:
    """The lock file of a GPU on this host. By its UUID: CUDA_VISIBLE_DEVICES may number it otherwise in each process."""
    return GPU_LOCKS / f"gpu-{uuid}.lock"


def turn_lock(place: str) -> Path:
    """The lock file of whoever is next to train at a place of this host."""
    return GPU_LOCKS / f"turn-{place}.lock"


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
def hold(path: Path, what: str, run: str, patience: float = PATIENCE) -> Iterator[int]:
    """Hold the lock file `path`, which stands for `what` (words for a person), on behalf of a run.

    Yields the descriptor; a child that inherits it keeps the lock. Raises BusyError naming the holder after `patience` seconds.
    """
    with _opened(path) as handle:
        deadline = time.monotonic() + patience
        while not _taken(handle):
            if time.monotonic() >= deadline:
                raise BusyError(f"{what} is in use by {holder(path)}: wait for it or stop it, then run again.")
            time.sleep(0.5)
        _sign(handle, run=run)
        yield handle


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a lock file, which is made if need be."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent == GPU_LOCKS:
            path.parent.chmod(0o1777)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another account's file can be locked, but not written
        handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    """Whether the lock was free and is now this process's."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        holder = json.loads(path.read_text())
        process = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        return f"run {holder['run']} ({process})" if "run" in holder else process
    except (OSError, ValueError, KeyError):
        return "another process"
