"""The built-in trainer from outside: start it in processes of its own, follow it, and say how it ended."""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.engines import warm
from tasks.engines.builtin.outcome import error_of
from tasks.engines.inputs import open_inputs
from tasks.engines.ranks import launch
from tasks.engines.turns import turn
from tasks.errors import DamagedError, InputError, InterruptedRun, LostProcessError
from tasks.progress import Progress, Stop
from tasks.records.job import DONE, RESUME, Job
from tasks.records.layout import FAILURE, FAILURE_BYTES, JOB, LOG, METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.store.artifact import verify
from tasks.store.root import Root

log = logging.getLogger(__name__)


def train(root: Root, job: Job, progress: Progress, stop: Stop) -> None:
    """Run the trainer to its end, one process per GPU. Its output is appended to `runs/<run>/log.txt`.

    The runs of a comparison that take one GPU are trained in one process after another (`warm`), others in processes of their
    own. Raises what `entry.train` says.
    """
    inputs = open_inputs(root, job)  # what is missing is said before a process starts
    folder = root.path(RunFolder(job.run).folder)
    training, log_file = job.experiment.training, folder / LOG
    stays = job.comparison is not None and training.gpus == 1
    if stays:
        try:
            verify(inputs.packed.path, inputs.packed.manifest)
        except DamagedError as error:
            raise InputError(str(error)) from error
    follower = Follower(folder / METRICS, progress)
    with turn(root, job.run, training.device, training.gpus, stop) as mine:
        (folder / FAILURE).write_bytes(b" " * FAILURE_BYTES)  # room for the reason on a disk that gets full
        log.info("training %s; its log is %s", job.run, log_file)
        if stays:
            status = warm.train(
                folder / JOB, log_file, root.folder, mine, verified=True, poll=follower.update, stop=stop
            )
        else:
            warm.dismiss(mine)
            command = [sys.executable, "-m", "tasks.engines.builtin", str(folder / JOB)]
            environment = {**os.environ, **mine.environment}
            status = launch(
                command, training.gpus, environment=environment, log=log_file, poll=follower.update, stop=stop
            )
    follower.update()
    if status != DONE:
        raise _error(job.run, folder, status)


class Follower:
    """Tells a `Progress` what is new in a metrics file."""

    def __init__(self, path: Path, progress: Progress):
        self._path, self._progress = path, progress
        self._seen: tuple[int, int] | None = None
        self._total = 0
        self._counters: dict[str, float] = {}

    def update(self) -> None:
        """Read the file if it changed since the last time."""
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return
        if self._seen == (state.st_mtime_ns, state.st_size):
            return
        self._seen = (state.st_mtime_ns, state.st_size)
        step = 0
        for line in read_metrics(self._path):
            step = line["step"]
            self._total = line.get("steps", self._total)
            self._counters |= {key: line[key] for key in ("loss", "bpb", "tokens_per_second", "mfu") if key in line}
        if self._total:
            self._progress("train", step, self._total, dict(self._counters))


def _error(run: str, folder: Path, status: int | None) -> Exception:
    """What an exit status other than 0 means; None: the process is gone."""
    if status in (RESUME, -signal.SIGTERM):
        return InterruptedRun(f"The run {run} was asked to stop and saved a checkpoint: start it again to resume.")
    failure = _failure(folder / FAILURE)
    if failure:
        return error_of(failure["status"], failure["message"])
    how = "was lost" if status is None else f"ended with status {status}"
    if status is not None and status < 0:
        how = f"was killed by signal {-status} (out of memory, or by hand?)"
    return LostProcessError(
        f"The trainer of {run} {how}: read {folder / LOG} and start it again to resume from the newest checkpoint."
    )


def _failure(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
