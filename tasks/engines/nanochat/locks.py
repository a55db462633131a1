"""One attempt at a run at a time, and one run per GPU, by locks whose descriptors upstream's ranks inherit.

A rank that outlives its launcher to save a checkpoint thus keeps a newcomer waiting until it is done.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.engines.nanochat.environment import Gpu
from tasks.store import locks


@contextlib.contextmanager
def hold(folder: Path, run: str, gpus: Sequence[Gpu], patience: float = locks.PATIENCE) -> Iterator[list[int]]:
    """Hold the run in `folder` and its GPUs; yields file descriptors to pass on. Raises BusyError naming the holder."""
    wanted = [(folder / ".lock", f"The run {run}")]
    wanted += [(locks.gpu_lock(gpu.uuid), f"The GPU {gpu.name}") for gpu in gpus]
    with contextlib.ExitStack() as held:
        yield [held.enter_context(locks.hold(path, what, run, patience)) for path, what in wanted]
