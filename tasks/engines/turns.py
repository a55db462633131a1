"""Whose turn it is: one training at a time on each GPU of a host, and one for each root where there is none.

A work pool may start more runs than a host has GPUs. Those that wait here have loaded and checked what they can by then, so a GPU
goes from one run to the next at once.
"""

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.errors import BusyError, InterruptedRun
from tasks.progress import Stop, never
from tasks.records import ledger
from tasks.store.artifact import fingerprint
from tasks.store.locks import hold, holder, turn_lock
from tasks.store.root import Root

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1
NEWS_SECONDS = 60.0
"""How often the ledger hears of a run that waits, whose hours have not begun."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Turn:
    """Where a run may train now: UUIDs of GPUs, or a name for this host's CPU under a root."""

    places: tuple[str, ...]
    gpus: bool

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process see these GPUs alone."""
        return {VISIBLE: ",".join(self.places)} if self.gpus else {}


@contextlib.contextmanager
def turn(root: Root, run: str, device: str, count: int = 1, stop: Stop = never, choose: bool = True) -> Iterator[Turn]:
    """Hold `count` GPUs, the first that are free, or the CPU; waits as long as it takes and says so once.

    `device`: auto, cpu or cuda. `choose` False: the first of all, as a process takes that is told nothing. GPUs that nvidia-smi
    does not show are not chosen between: whatever PyTorch finds is one place.
    The hours of the run's ledger entry count from there. The kernel ends the turn of a process that dies. Raises InterruptedRun when asked to stop meanwhile.
    """
    gpus = visible_gpus() if device != "cpu" else []
    places = (gpus if choose else gpus[:count]) or [fingerprint(str(root.folder))]
    with contextlib.ExitStack() as held:
        told = 0.0
        try:
            while not (mine := _take(held, places, min(count, len(places)), run)):
                if not told:
                    log.info("%s waits for its turn: %s", run, holder(turn_lock(places[0])))
                if time.monotonic() > told + NEWS_SECONDS:
                    ledger.start_clock(root, run)
                    told = time.monotonic()
                if stop():
                    raise InterruptedRun(f"The run {run} was asked to stop before its turn came: start it again.")
                time.sleep(POLL_SECONDS)
        finally:
            if told:
                ledger.start_clock(root, run)
        yield Turn(mine, bool(gpus))


@contextlib.contextmanager
def free_gpus(most: int) -> Iterator[Turn]:
    """Hold the first GPUs that are free now, `most` of them: maybe none."""
    mine: list[str] = []
    with contextlib.ExitStack() as held:
        for gpu in visible_gpus():
            if len(mine) == most:
                break
            with contextlib.suppress(BusyError):
                held.enter_context(hold(turn_lock(gpu), gpu, "a trainer that starts", patience=0))
                mine.append(gpu)
        yield Turn(tuple(mine), True)


def _take(held: contextlib.ExitStack, places: Sequence[str], count: int, run: str) -> tuple[str, ...]:
    """The first `count` places that are free, all at once; none when there are fewer."""
    mine = []
    with contextlib.ExitStack() as taken:
        for place in places:
            with contextlib.suppress(BusyError):
                taken.enter_context(hold(turn_lock(place), place, run, patience=0))
                mine.append(place)
            if len(mine) == count:
                held.push(taken.pop_all())
                return tuple(mine)
    return ()


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """UUIDs of the GPUs that a process with this environment may use, as nvidia-smi shows them; none where it shows none."""
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    numbered = {index: line.strip() for index, line in enumerate(shown) if line.startswith("GPU-")}  # else it complains
    wanted = environment.get(VISIBLE)
    if wanted is None:
        return list(numbered.values())
    names = [name.strip() for name in wanted.split(",")]
    return [
        uuid
        for name in names
        for index, uuid in numbered.items()
        if name == str(index) or (name and uuid.startswith(name))
    ]
