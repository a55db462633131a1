"""The tasks of this room: train a packed arm by either engine, score its weights again, evaluate them on CORE."""

import logging
from typing import Any

from prefect import task

from tasks.engines import entry
from tasks.engines.export import Kind
from tasks.errors import BusyError, DiskError, InterruptedRun, TrainingError
from tasks.records.layout import run_id
from tasks.spec import Experiment
from tasks.steps import progress, retryable, watched
from tasks.store.root import Root

log = logging.getLogger(__name__)
FINAL = (BusyError, DiskError, InterruptedRun, TrainingError)


def again(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: a killed process and an unreachable store are worth another attempt, which resumes from
    the newest checkpoint; a full disk, a hang, a diverged training and a request to stop are not.
    """
    return retryable(task, run, state) and not isinstance(state.result(raise_on_failure=False), FINAL)


@task(
    task_run_name="train {experiment.arm.name}, seed {experiment.seed}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_jitter_factor=0.5,
    retry_condition_fn=again,
    persist_result=False,
)
def train(
    root_url: str, experiment: Experiment, pool_id: str, arm_id: str, comparison: str | None = None
) -> dict[str, Any]:
    """Train and score; returns the run's id and the facts of its result."""
    with progress("Training") as shown, watched() as stop:
        result = entry.train(
            Root(root_url), experiment, pool_id, arm_id, comparison=comparison, progress=shown, stop=stop
        )
    return {"run_id": run_id(experiment, arm_id), **result.facts}


@task(task_run_name="score {run_id} on {texts}", persist_result=False)
def score_outside(root_url: str, run_id: str, texts: str) -> dict[str, Any]:
    """Score the final weights on texts from elsewhere; returns the facts of their scores."""
    return dict(entry.score_outside(Root(root_url), run_id, texts).facts)


@task(task_run_name="ask {run_id} {asked}", persist_result=False)
def score_questions(root_url: str, run_id: str, asked: str) -> dict[str, Any]:
    """Ask the final weights questions; returns the facts of their answers."""
    return dict(entry.score_questions(Root(root_url), run_id, asked).facts)


@task(task_run_name="CORE of {run_id}", persist_result=False)
def core(root_url: str, run_id: str) -> dict[str, Any]:
    """Evaluate the final weights on CORE by nanochat; returns the facts: core, and accuracy of each task."""
    return dict(entry.evaluate_core(Root(root_url), run_id).facts)


@task(task_run_name="{run_id} to {to}", persist_result=False)
def export(root_url: str, run_id: str, to: Kind) -> dict[str, Any]:
    """Write a finished run for another program; returns the name of the artifact and where it lies on this machine."""
    root = Root(root_url, make=False)
    made = entry.export(root, run_id, to)
    log.info("The export is %s/%s, on this machine %s.", root.url, made.name, made.path)
    return {"run": run_id, "artifact": made.name, "folder": str(made.path), **made.facts}
