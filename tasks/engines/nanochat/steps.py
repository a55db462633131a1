"""The task of this room: evaluate a run by upstream nanochat. The one that trains is the trainer's, for either engine."""

from typing import Any

from prefect import task

from tasks.engines.nanochat.core import evaluate
from tasks.store.root import Root


@task(task_run_name="CORE of {run_id}", persist_result=False)
def core(root_url: str, run_id: str) -> dict[str, Any]:
    """Evaluate the final weights on CORE by nanochat; returns the facts: core, and accuracy of each task."""
    return dict(evaluate(Root(root_url), run_id).facts)
