"""One attempt at a run at a time, and one run per GPU: lock files whose descriptors the ranks inherit.

The kernel drops such a lock when the last process that holds it is gone, however it went; a rank that outlives its launcher
to save a checkpoint thus keeps a newcomer waiting until it is done. GPUs are locked by UUID, in the files that the built-in
trainer uses as well.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.errors import BusyError
from tasks.nanochat.environment import Gpu

PATIENCE = 60.0
"""Seconds to wait for a holder that may be saving its last checkpoint."""


@contextlib.contextmanager
def hold(folder: Path, run: str, gpus: Sequence[Gpu], patience: float = PATIENCE) -> Iterator[list[int]]:
    """Hold the run in `folder` and its GPUs; yields file descriptors to pass on. Raises BusyError naming the holder."""
    places = Path(tempfile.gettempdir()) / "fabrating-locks"
    wanted = [(folder / ".lock", f"The run {run}")]
    wanted += [(places / f"gpu-{gpu.uuid}.lock", f"The GPU {gpu.name}") for gpu in gpus]
    with contextlib.ExitStack() as held:
        yield [held.enter_context(_lock(path, what, run, patience)) for path, what in wanted]


@contextlib.contextmanager
def _lock(path: Path, what: str, run: str, patience: float) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(f"{what} is in use by {_holder(path)}: wait or stop it, then run again.") from None
            time.sleep(0.5)
        content = {"run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(content).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"run {holder['run']} (process {holder['pid']} on {holder['host']} since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"
