"""What the Prefect UI shows of an experiment: plan, preparation, loss curve, scores. Called inside a flow or task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import show
from tasks.spec import Experiment
from tasks.store.root import Root
from tasks.tracking import artifacts
from tasks.tracking.estimate import Estimate


def show_plan(experiment: Experiment, plan: Mapping[str, Any], cost: Estimate | None = None) -> None:
    """Before anything is spent: documents, tokens, steps, time and cost."""
    text = artifacts.plan_markdown(experiment, plan, cost)
    show.markdown(f"plan-{experiment.arm.name}", text, "Plan and cost")


def show_estimate(name: str, costs: Sequence[Estimate], notes: Sequence[str] = ()) -> None:
    """What one or several runs would cost."""
    show.markdown(f"estimate-{name}", artifacts.estimate_markdown(costs, notes), "Estimated cost")


def show_prepared(arm_id: str, facts: Mapping[str, Any]) -> None:
    """What preparing an arm counted."""
    show.markdown(f"prepared-{arm_id}", artifacts.prepared_markdown(arm_id, facts), "What was prepared")


def show_loss_curve(root: Root, name: str, run_ids: Sequence[str], labels: Sequence[str] | None = None) -> None:
    """The loss curves of one or several runs, as far as they have come; equal labels are seeds of one arm."""
    files = [metrics_file(root, run) for run in run_ids]
    text = artifacts.loss_curve_markdown(files, labels or run_ids, name)
    show.markdown(f"loss-{name}", text, "Bits per byte and training loss over trained tokens")


def show_scores(name: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Bits per byte in all and per score decile, one row a run."""
    show.table(f"scores-{name}", artifacts.scores_table(results), "Bits per byte on the common holdout")


def metrics_file(root: Root, run: str) -> Path:
    """A run's metrics: the live file where the run is on this machine, else the copy in its result."""
    live = root.path(f"runs/{run}") / "metrics.jsonl"
    return live if live.is_file() else root.open(f"runs/{run}/result").path / "metrics.jsonl"
