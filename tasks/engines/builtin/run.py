"""A run from outside: start the trainer in processes of its own, follow it, and say how it ended."""

import json
import logging
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.engines.builtin import metrics
from tasks.engines.ranks import launch
from tasks.errors import BusyError, InputError, InterruptedRun, LostProcessError, TrainingError
from tasks.progress import Progress, Stop, never, silent
from tasks.records import job as jobs
from tasks.records.job import Job, open_inputs
from tasks.records.layout import FAILURE, JOB, LOG, METRICS, RunFolder
from tasks.spec import Experiment
from tasks.store.artifact import Artifact
from tasks.store.root import Root

log = logging.getLogger(__name__)


def train(
    root: Root, experiment: Experiment, pool_id: str, arm_id: str, progress: Progress = silent, stop: Stop = never
) -> Artifact:
    """Train a packed arm and score it on the holdout: the artifact `runs/<run>/result`, as it is when complete.

    An earlier attempt is gone on with from its newest whole checkpoint. The trainer runs in processes of its own, one per
    GPU, in the caller's process group: what cancels the caller reaches it, and so does the caller's death (it writes a
    checkpoint and ends). What it prints is appended to `runs/<run>/log.txt`. `progress`: stage "train", in steps.

    Raises InputError for a parameter that cannot work, BusyError when the GPU or the run is in use, InterruptedRun when the
    trainer was asked to stop and saved a checkpoint, LostProcessError when it was killed, TrainingError when it failed.
    """
    job = Job.of(root, experiment, pool_id, arm_id)
    if root.find(job.result) is not None:
        return root.open(job.result)
    open_inputs(root, job)
    folder = root.path(RunFolder(job.run).folder)
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder / JOB)
    (folder / FAILURE).unlink(missing_ok=True)
    follower = Follower(folder / METRICS, progress)
    log.info("training %s; its log is %s", job.run, folder / LOG)
    command = [sys.executable, "-m", "tasks.engines.builtin", str(folder / JOB)]
    status = launch(command, experiment.training.gpus, log=folder / LOG, poll=follower.look, stop=stop)
    follower.look()
    if status != jobs.DONE:
        raise _error(job.run, folder, status)
    return replace(root.open(job.result), reused=False)


def score(root: Root, run: str, checkpoint: int | None = None) -> Artifact:
    """Score a checkpoint of a run on the holdout again, in this process: the artifact `runs/<run>/scores/step_<step>`.

    `checkpoint`: its step; None: the newest whole one. Raises InputError when there is none.
    """
    from tasks.engines.builtin.score import (
        score_checkpoint,  # torch is slow to import, and `train` does without it here
    )

    return score_checkpoint(root, run, checkpoint)


def score_outside(root: Root, run: str, texts: str) -> Artifact:
    """Score a finished run on texts from elsewhere, in this process: the artifact `runs/<run>/outside/<texts>`.

    `texts`: those encoded as `pools/<pool>/outside/<texts>`. Raises InputError when the run or they are not there.
    """
    from tasks.engines.builtin.score import score_outside as evaluate

    return evaluate(root, run, texts)


class Follower:
    """Tells a `Progress` what is new in a metrics file."""

    def __init__(self, path: Path, progress: Progress):
        self._path, self._progress = path, progress
        self._seen: tuple[int, int] | None = None
        self._total = 0
        self._counters: dict[str, float] = {}

    def look(self) -> None:
        """Read the file if it changed since the last look."""
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return
        if self._seen == (state.st_mtime_ns, state.st_size):
            return
        self._seen = (state.st_mtime_ns, state.st_size)
        step = 0
        for line in metrics.read(self._path):
            step = line["step"]
            self._total = line.get("steps", self._total)
            self._counters |= {key: line[key] for key in ("loss", "bpb", "tokens_per_second", "mfu") if key in line}
        if self._total:
            self._progress("train", step, self._total, dict(self._counters))


def _error(run: str, folder: Path, status: int) -> Exception:
    """What an exit status other than 0 means."""
    if status in (jobs.RESUME, -signal.SIGTERM):
        return InterruptedRun(
            f"The run {run} was asked to stop and saved what it had learned: start it again to go on."
        )
    failure = _failure(folder / FAILURE)
    kinds: Mapping[int, type[Exception]] = {jobs.INPUT: InputError, jobs.BUSY: BusyError}
    if failure and failure["status"] in kinds:
        return kinds[failure["status"]](failure["message"])
    if failure:
        return TrainingError(failure["message"])
    how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return LostProcessError(
        f"The trainer of {run} was {how} (out of memory, or by hand?): read {folder / LOG} and start it again to go on "
        f"from the newest checkpoint."
    )


def _failure(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
