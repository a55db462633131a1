"""Matched arms, each trained in several replicates, and the verdict on them: which is better, by how much, how sure."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from prefect import flow, get_run_logger

from flows.children import cancel_children, preparations, run_children, scoring, training
from flows.comparison import Hands, run_comparison
from flows.deployed import as_deployed, taking
from flows.prepare import TaskSteps
from tasks.records.cost import CostEstimate
from tasks.records.layout import REPORT
from tasks.reports.live import Standing
from tasks.reports.steps import show_estimate, show_loss_curve, show_scores, show_standing, show_verdict
from tasks.spec import Arm
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.form import ComparisonForm


@flow(name="compare", flow_run_name="{name}", on_cancellation=[cancel_children])
@as_deployed
@taking(ComparisonForm)
def compare(form: ComparisonForm) -> dict[str, Any]:
    """Train replicates of every arm on the same budget, and judge which is better with an error bar.

    How the question is to be answered is written to `registered.json` in the verdict's folder before the first run, and shown
    beside the result with every later change and every look.

    Arms that differ in more than their selection are refused before anything is spent. What is complete under the root is
    reused. All arms draw from the documents that have every rating which one of them uses.
    """
    return compare_and_show(form.spec(), form.root)


def compare_and_show(spec: ComparisonSpec, root: str) -> dict[str, Any]:
    """Let children make what is missing of a comparison, judge it and show the verdict. Called in a flow."""
    store = Root(root)
    judged = run_comparison(store, spec, Children(store, root))
    name, runs, made, verdict = spec.name, judged.plan.runs, judged.made, judged.verdict
    show_loss_curve(store, [run.id for run in runs], [run.experiment.arm.name for run in runs], name)
    show_scores(store, name, {run.id: run.experiment for run in runs})
    report = show_verdict(store, made, verdict)
    for sentence in verdict.sentences:
        get_run_logger().info(sentence)
    get_run_logger().info("Report: %s", report)
    return {"verdict": made.name, "sentences": verdict.sentences, "report": str(made.path / REPORT)}


class Children(Hands):
    """The hands of a flow: its children, on the work pools where their deployments belong."""

    def __init__(self, store: Root, root: str):
        super().__init__(store, TaskSteps())
        self._url = root
        self._pages: dict[str, str] = {}

    def say(self, message: str) -> None:
        get_run_logger().info(message)

    def show_cost(self, plan: ComparisonPlan, costs: Sequence[CostEstimate], notes: Sequence[str]) -> None:
        show_estimate(plan.spec.name, costs, notes)

    def following(self, plan: ComparisonPlan, standing: Callable[[], Standing]) -> AbstractContextManager[None]:
        return show_standing(plan.spec.name, standing, self._pages)

    def prepare(self, spec: ComparisonSpec, arms: Mapping[str, Arm]) -> None:
        children = preparations(arms, spec.pool, spec.training, self._url)
        run_children(children[:1])  # makes index, holdout and tokenizer, which the others find
        run_children(children[1:])

    def train(self, runs: Sequence[tuple[ComparisonPlan, PlannedRun]]) -> None:
        run_children(
            [
                training(
                    run.id,
                    run.arm_id,
                    run.experiment.training,
                    run.experiment.seed,
                    self._url,
                    run.experiment.held,
                    plan.spec.alike,
                )
                for plan, run in runs
            ],
            self._pages,
        )

    def score(
        self, plan: ComparisonPlan, runs: Sequence[PlannedRun], texts: Sequence[str], questions: Sequence[str]
    ) -> None:
        spec = plan.spec
        run_children([scoring(run.id, spec.texts, spec.core, self._url, spec.questions) for run in runs])
