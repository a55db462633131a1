"""One attempt at a run at a time on all hosts that share a root, and one run per GPU, whatever engine it trains with."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.records.layout import RunFolder
from tasks.store.locks import PATIENCE, gpu_lock, hold
from tasks.store.root import Root


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


@contextlib.contextmanager
def hold_attempt(root: Root, run: str, gpus: Mapping[str, str], leads: bool = True) -> Iterator[list[int]]:
    """What an attempt at a run holds: `hold_run` on this host and, where it `leads`, the run's lease on the root.

    Yields what `hold_run` does. Raises BusyError naming the holder, here or on another host.
    """
    folder = root.path(RunFolder(run).folder)
    folder.mkdir(parents=True, exist_ok=True)
    with hold_run(run, folder if leads else None, gpus) as descriptors:
        if not leads:
            yield descriptors
            return
        with root.leased(RunFolder(run).lease, f"The run {run}", folder):
            yield descriptors
