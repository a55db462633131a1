"""What the Prefect UI shows of an experiment: plan, preparation, loss curve, scores, verdict. Called inside a flow or task.

Outside of a run, artifacts belong to nobody: nothing is shown then, so that the same code works as a plain library.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks import steps as show
from tasks.records.cost import CostEstimate
from tasks.records.layout import METRICS, REPORT, RunFolder
from tasks.reports import artifacts
from tasks.spec import Experiment
from tasks.store.artifact import Artifact
from tasks.store.root import Root


def show_plan(experiment: Experiment, plan: Mapping[str, Any], cost: CostEstimate | None = None) -> None:
    """Before anything is spent: documents, tokens, steps, time and cost."""
    text = artifacts.plan_markdown(experiment, plan, cost)
    _markdown(f"plan-{experiment.arm.name}", text, "Plan and cost")


def show_estimate(name: str, costs: Sequence[CostEstimate], notes: Sequence[str] = ()) -> None:
    """What one or several runs would cost."""
    _markdown(f"estimate-{name}", artifacts.estimate_markdown(costs, notes), "Estimated cost")


def show_prepared(arm_id: str, facts: Mapping[str, Any]) -> None:
    """What preparing an arm counted."""
    _markdown(f"prepared-{arm_id}", artifacts.prepared_markdown(arm_id, facts), "What was prepared")


def show_loss_curve(
    root: Root, run_ids: Sequence[str], labels: Sequence[str] | None = None, name: str | None = None
) -> None:
    """The loss curves of one or several runs, as far as they have come; equal labels are seeds of one arm."""
    files = [metrics_file(root, run) for run in run_ids]
    text = artifacts.loss_curve_markdown(files, labels or run_ids, name or ", ".join(run_ids))
    _markdown(f"loss-{name or run_ids[0]}", text, "Bits per byte and training loss over trained tokens")


def show_scores(name: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Bits per byte in all and per score decile, one row a run."""
    if show.in_run():
        rows = artifacts.scores_table(results)
        create_table_artifact(rows, key=show.key("scores", name), description="Bits per byte on the common holdout")


def show_outside(run: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Bits per byte of one run on texts from elsewhere; `scores`: {name of the texts: facts}."""
    if show.in_run():
        rows = [{"texts": name, "bits per byte": round(facts["bpb"], 4)} for name, facts in scores.items()]
        create_table_artifact(rows, key=show.key("outside", run), description="Bits per byte on texts from elsewhere")


def show_core(run: str, facts: Mapping[str, Any]) -> None:
    """CORE of one run, and accuracy of each of its tasks."""
    if show.in_run():
        rows = [{"task": "CORE", "accuracy": None, "centered": round(facts["core"], 4)}]
        for name, values in facts["tasks"].items():
            rows.append({"task": name} | {key: round(value, 4) for key, value in values.items()})
        create_table_artifact(rows, key=show.key("core", run), description="Accuracy; centered: 0 is guessing")


def show_verdict(root: Root, made: Artifact, verdict: Mapping[str, Any]) -> None:
    """Which arm is better, by how much, how sure; and where the report of the verdict's artifact `made` lies."""
    fetch = f"fabrating report {made.path.name} --root {root.url}" if root.remote else None
    text = artifacts.verdict_markdown(verdict, (made.path / REPORT).as_uri(), fetch)
    _markdown(f"verdict-{verdict['name']}", text, " ".join(pair["sentence"] for pair in verdict["comparisons"]))


def metrics_file(root: Root, run: str) -> Path:
    """A run's metrics: the live file where the run is on this machine, else the copy in its result."""
    live = root.path(RunFolder(run).file(METRICS))
    return live if live.is_file() else root.open(RunFolder(run).result).path / METRICS


def _markdown(key: str, text: str, description: str) -> None:
    if show.in_run():
        create_markdown_artifact(text, key=show.key(key), description=description)
