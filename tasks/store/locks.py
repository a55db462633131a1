"""Lock files that say who holds them: one attempt at a run at a time, one training per GPU whatever engine it runs on.

The kernel drops a lock when the last process that holds its descriptor is gone, however it went. A holder that was cancelled
needs up to half a minute for its last checkpoint, so a newcomer waits a while before it gives up.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import BusyError

PATIENCE = 60.0
"""Seconds to wait for a holder that may be writing its last checkpoint."""
GPU_LOCKS = Path("/tmp/fabrating-locks")
"""The same for all accounts and installations of a host, whatever their TMPDIR: a GPU is no less in use for that."""


def gpu_lock(uuid: str) -> Path:
    """The lock file of a GPU on this host. By its UUID: CUDA_VISIBLE_DEVICES may number it otherwise in each process."""
    return GPU_LOCKS / f"gpu-{uuid}.lock"


@contextlib.contextmanager
def hold(path: Path, what: str, run: str, patience: float = PATIENCE) -> Iterator[int]:
    """Hold the lock file `path` for `what` (words for a person); yields its descriptor, which a child may inherit.

    Raises BusyError naming the holder after `patience` seconds.
    """
    handle = _open(path)
    try:
        deadline = time.monotonic() + patience
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise BusyError(f"{what} is in use by {_holder(path)}: wait for it or stop it, then run again.")
            time.sleep(0.5)
        content = {"run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        with contextlib.suppress(OSError):  # another account's file can be locked, but not written
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(content).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent == GPU_LOCKS:
            path.parent.chmod(0o1777)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"run {holder['run']} (process {holder['pid']} on {holder['host']} since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"
