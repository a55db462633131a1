"""One attempt at a run at a time, and one run per GPU, whatever engine it trains with."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.store.locks import PATIENCE, gpu_lock, hold


@contextlib.contextmanager
def hold_run(run: str, folder: Path | None, gpus: Mapping[str, str], patience: float = PATIENCE) -> Iterator[list[int]]:
    """Hold the run in `folder` (None: another rank does) and GPUs, given as UUID -> name. Raises BusyError naming the holder.

    Yields file descriptors. A rank that inherits them holds the locks until it ends, so a newcomer waits for its last
    checkpoint even after its launcher is gone.
    """
    wanted = [(folder / ".lock", f"The run {run}")] if folder else []
    wanted += [(gpu_lock(uuid), f"The GPU {name}") for uuid, name in gpus.items()]
    with contextlib.ExitStack() as held:
        yield [held.enter_context(hold(path, what, run, patience)) for path, what in wanted]
