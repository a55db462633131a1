"""Noticing a hang: nothing finished for many times as long as a step usually takes, while a GPU is idle."""

import re
import signal
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.engines.nanochat.logs import Step, Told, Validation
from tasks.engines.ranks import Ranks, read_from

TIMES = 10.0
"""A silence of this many usual steps is suspicious."""
LEAST = 60.0
STARTING = 1_800.0
"""Seconds to the first step: imports, compilation (210 s were measured for fp8), the first batch, the first evaluation."""
EVALUATING = 600.0
"""Seconds without a sign in an evaluation (which gives one every 10 s): compiling its graph takes minutes."""
SAVING = 900.0
BUSY_FACTOR = 3.0
"""Where every GPU is busy, wait this many times as long: it may be computing."""
IDLE_PERCENT = 5
RECENT = 20
STACKS_SECONDS = 2.0
"""Seconds that ranks get to print their stacks."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')
CAUSES = (
    ("_document_batches", "it looks for documents: does its part of every shard hold some?"),
    ("read_row_group", "it reads a shard: is the disk or the network file system answering?"),
    ("save_checkpoint", "it writes a checkpoint: is the disk answering?"),
    ("write_whole", "it writes a checkpoint: is the disk answering?"),
    ("HoldoutEvaluation", "it evaluates"),
    ("all_reduce", "it waits for the other ranks: look at what they do, and at NCCL and the links between the GPUs"),
    ("barrier", "it waits for the other ranks: look at what they do, and at NCCL and the links between the GPUs"),
    ("_compute_muon", "it waits for the other ranks or the GPU: look at what they do, and at NCCL"),
    ("init_process_group", "the ranks do not find each other: is the port reachable on this host?"),
)
"""Names in a stack, innermost first, and what they suggest."""


class Watch:
    """How long the ranks have been silent, and how long they may be: `times` usual steps, but at least `least` seconds."""

    def __init__(self, times: float, least: float, clock: Callable[[], float] = time.monotonic):
        self._times, self._least, self._clock = times, least, clock
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._heard = clock()
        self._limit = STARTING

    def hear(self, sign: Step | Validation | Told) -> None:
        """A sign of life. It tells what comes next, and so how long the next silence may last."""
        self._heard = self._clock()
        if isinstance(sign, Step):
            self._seconds.append(sign.seconds)
        if isinstance(sign, Told) and sign.event == "saving":
            self._limit = SAVING
        elif isinstance(sign, Told):
            self._limit = EVALUATING
        else:
            self._limit = max(self._times * self.usual, self._least) if len(self._seconds) > 1 else STARTING

    @property
    def usual(self) -> float:
        """Median seconds of the recent steps; 0 before the first."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return self._clock() - self._heard

    def hangs(self, utilization: Callable[[], Sequence[int] | None]) -> bool:
        """Whether the silence means a hang. `utilization`: of each GPU in percent, asked only when it matters."""
        if self.silence() <= self._limit:
            return False
        percents = utilization()
        if percents and min(percents) >= IDLE_PERCENT:
            return self.silence() > BUSY_FACTOR * self._limit
        return True


def gpu_utilization(uuids: Sequence[str]) -> list[int] | None:
    """Percent of each GPU by nvidia-smi; None where there is none to ask about, or it does not answer."""
    if not uuids:
        return None
    query = ["nvidia-smi", "--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    wanted = {uuid.removeprefix("GPU-") for uuid in uuids}
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    found = [row[1] for row in rows if len(row) == 2 and row[0].removeprefix("GPU-") in wanted]
    return [int(percent) for percent in found if percent.isdigit()] or None


def stacks(ranks: Ranks) -> list[str]:
    """What each rank is doing: the tail of its log after asking for its stacks (see the overlay)."""
    places = [log.stat().st_size for log in ranks.logs]
    for process in ranks.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)
    time.sleep(STACKS_SECONDS)
    return [read_from(log, place).decode(errors="replace") for log, place in zip(ranks.logs, places, strict=True)]


def likely_cause(stacks: Sequence[str]) -> str:
    """What the stacks of the ranks (faulthandler's output) suggest: of a silent rank, else of one that waits for no other."""
    silent = [str(rank) for rank, stack in enumerate(stacks) if not _FRAME.search(stack)]
    if silent:
        return f"rank {' and '.join(silent)} does not answer: is it stopped, or stuck in a driver or a file system?"
    found = []
    for rank, stack in enumerate(stacks):
        frames = [(Path(path).name, name) for path, _, name in _FRAME.findall(_main_thread(stack))]
        cause = next(
            (text for word, text in CAUSES if any(word in name or word in file for file, name in frames)), None
        )
        where = f"rank {rank} is in {frames[0][1]} ({frames[0][0]})"
        found.append((cause is not None and "other ranks" in cause, f"{where}: {cause}" if cause else where))
    return min(found, key=lambda item: item[0])[1]


def _main_thread(stack: str) -> str:
    """The part of faulthandler's output about the main thread, which comes last."""
    return re.split(r"^(?:Current thread|Thread) .*$", stack, flags=re.MULTILINE)[-1]
