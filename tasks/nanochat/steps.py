"""The task of this room: train a packed arm by upstream nanochat."""

from typing import Any

from prefect import task

from tasks import show
from tasks.cancellation import watched
from tasks.errors import BusyError, InterruptedRun, TrainingError
from tasks.nanochat import core as questions
from tasks.nanochat import engine
from tasks.spec import Experiment
from tasks.store.names import run_id
from tasks.store.root import Root

FINAL = (BusyError, InterruptedRun, TrainingError)


def again(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: a killed rank and a store that is away are worth another attempt, which goes on from the
    newest checkpoint; a hang, a diverged training and a request to stop are not.
    """
    return show.retryable(task, run, state) and not isinstance(state.result(raise_on_failure=False), FINAL)


@task(
    task_run_name="train {experiment.arm.name} by nanochat, seed {experiment.seed}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_jitter_factor=0.5,
    retry_condition_fn=again,
    persist_result=False,
)
def train(root_url: str, experiment: Experiment, pool_id: str, arm_id: str) -> dict[str, Any]:
    """Train and score; returns the run's id and the facts of its result."""
    with show.progress("Training") as progress, watched() as stop:
        result = engine.train(Root(root_url), experiment, pool_id, arm_id, progress=progress, stop=stop)
    return {"run_id": run_id(experiment, arm_id), **result.facts}


@task(task_run_name="CORE of {run_id}", persist_result=False)
def core(root_url: str, run_id: str) -> dict[str, Any]:
    """Evaluate the final weights on CORE by nanochat; returns the facts: core, and accuracy of each task."""
    return dict(questions.evaluate(Root(root_url), run_id).facts)
