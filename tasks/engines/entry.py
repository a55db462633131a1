"""The engines behind one door: train an arm, score a checkpoint again, ask a finished run the CORE questions.

Only the engine that is asked for is imported; torch only where it computes.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.cores import limited
from tasks.engines import warm
from tasks.engines.export import Kind
from tasks.engines.locks import hold_attempt
from tasks.engines.turns import free_gpus, turn
from tasks.progress import Progress, Stop, never, silent
from tasks.records.job import Job
from tasks.records.layout import JOB, RunFolder
from tasks.spec import Arm, Experiment, Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root


def check(training: Training, arms: Sequence[Arm], packed: Mapping[str, Any] | None = None) -> None:
    """Raises InputError for what the engine cannot do: by the parameters alone, and by the facts of the packed arm, if it is there."""
    if training.engine == "nanochat":
        from tasks.engines.nanochat.plan import plan_run, require_one_epoch, require_upstreams_ways

        require_upstreams_ways(training)
        for arm in arms:
            require_one_epoch(arm)
        if packed is not None:
            plan_run(training, packed["rows"], packed["vocab_size"], ())


def get_ready(root: Root, training: Training, runs: int) -> None:
    """Let trainers of this host's free GPUs load, for so many runs of a comparison to come at most: five idle minutes later they are gone."""
    if training.engine == "builtin" and training.gpus == 1 and training.device != "cpu":
        with limited(training.workers), free_gpus(runs) as gpus:
            warm.get_ready(root.folder, gpus)


def train(
    root: Root,
    experiment: Experiment,
    pool_id: str,
    arm_id: str,
    progress: Progress = silent,
    stop: Stop = never,
    comparison: str | None = None,
) -> Artifact:
    """Train a packed arm by the engine that the experiment names, and score it: the artifact `runs/<run>/result`.

    A finished run is returned as it is; an unfinished one resumes from its newest complete checkpoint. `comparison`: the
    name of the one whose runs must all have the same hardware, if any. `progress`: stage "train", in steps.

    Waits until a GPU is free, or on a CPU until the root's other trainings on this host have ended. Raises InputError for a parameter that cannot work, or when the finished run was trained on other content than lies there
    now, BusyError when the run or a GPU is in use, SupersededError when another host has taken the run over while this one could
    not reach the root, InterruptedRun when the training was asked to stop and saved a checkpoint, LostProcessError when one
    of its processes was killed, DiskError when nothing can be written here, TrainingError when it failed or hangs.
    """
    job = Job.of(root, experiment, pool_id, arm_id, comparison)
    if (finished := root.find(job.result)) is not None:
        root.require_current([finished])
        if not root.published(job.result):  # the attempt ended in the middle of its upload
            with hold_attempt(root, job.run, {}):
                root.mirror(job.result)
        return root.open(job.result)
    _train(root, job, progress, stop)
    return replace(root.open(job.result), reused=False)


def _train(root: Root, job: Job, progress: Progress, stop: Stop) -> None:
    """Train a run that is not finished, which this process alone holds on this host."""
    training = job.experiment.training
    job.write(root.path(RunFolder(job.run).file(JOB)))
    if training.engine == "nanochat":
        from tasks.engines.nanochat.engine import train as train_upstream

        with limited(training.workers), _alone(root, job.run, training.device, training.gpus, stop):
            train_upstream(root, job, progress, stop)
    else:
        from tasks.engines.builtin import engine

        with limited(training.workers):
            engine.train(root, job, progress, stop)


def score(root: Root, run: str, checkpoint: int | None = None) -> Artifact:
    """Score a checkpoint of a run on the holdout again, in this process: the artifact `runs/<run>/scores/step_<step>`.

    `checkpoint`: its step; None: the newest complete one. Raises InputError when there is none.
    """
    from tasks.engines.builtin.score import score_checkpoint

    with _alone(root, run):
        return score_checkpoint(root, run, checkpoint)


def score_outside(root: Root, run: str, texts: str) -> Artifact:
    """Score a finished run on texts from elsewhere, in this process: the artifact `runs/<run>/outside/<texts>`.

    `texts`: those encoded as `pools/<pool>/outside/<texts>`. Raises InputError when the run or they do not exist.
    """
    from tasks.engines.builtin.score import score_outside

    with _alone(root, run):
        return score_outside(root, run, texts)


def score_questions(root: Root, run: str, asked: str) -> Artifact:
    """Ask a finished run questions, in this process: the artifact `runs/<run>/questions/<asked>`.

    `asked`: those encoded as `pools/<pool>/questions/<asked>`. Raises InputError when the run or they do not exist.
    """
    from tasks.engines.builtin.score import score_questions

    with _alone(root, run):
        return score_questions(root, run, asked)


def require_core() -> None:
    """Raises InputError when the questions of CORE are not on this machine: better said before runs are trained for them."""
    from tasks.engines.nanochat.core import find_bundle

    find_bundle()


def evaluate_core(root: Root, run: str, max_per_task: int | None = None) -> Artifact:
    """Evaluate a finished run on CORE by nanochat's own evaluation: the artifact `runs/<run>/core`.

    `max_per_task`: so many questions of each task, the same ones for every run; None: all. Raises what `core.evaluate` does.
    """
    from tasks.engines.nanochat.core import evaluate

    with _alone(root, run):
        return evaluate(root, run, max_per_task)


def export(root: Root, run: str, to: Kind) -> Artifact:
    """Write a finished run for another program: the artifact `runs/<run>/export/<to>`. Raises what `build_export` does."""
    from tasks.engines.export.folder import build_export

    return build_export(root, run, to)


@contextlib.contextmanager
def _alone(root: Root, run: str, device: str = "auto", gpus: int = 1, stop: Stop = never) -> Iterator[None]:
    """The turn at the first GPUs, where no trainer idles meanwhile."""
    with turn(root, run, device, gpus, stop, choose=False) as mine:
        warm.dismiss(mine)
        yield
