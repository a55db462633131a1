"""One training per GPU and one process group per run, by lock files that say who holds them.

The kernel drops a lock when its holder dies, however it dies. A run that was cancelled needs up to half a minute for its
last checkpoint, so a newcomer waits a while before it gives up.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tasks.errors import BusyError

PATIENCE = 60.0
"""Seconds to wait for a holder that may be writing its last checkpoint."""


@contextlib.contextmanager
def hold(path: Path, what: str, run: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock file `path` for `what` (words for a person). Raises BusyError naming the holder after `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + patience
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise BusyError(f"{what} is in use by {_holder(path)}: wait for it or stop it, then run again.")
            time.sleep(0.5)
        content = {"run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(content).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def device_lock(device: torch.device) -> Path:
    """The lock file of a GPU on this host, by its UUID: CUDA_VISIBLE_DEVICES may number it otherwise in each process."""
    identity = torch.cuda.get_device_properties(device).uuid
    return Path(tempfile.gettempdir()) / "fabrating-locks" / f"gpu-{identity}.lock"


@contextlib.contextmanager
def hold_device(device: torch.device, run: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold this process's GPU; a CPU is shared."""
    if device.type != "cuda":
        yield
        return
    with hold(device_lock(device), f"GPU {device.index} ({torch.cuda.get_device_name(device)})", run, patience):
        yield


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
