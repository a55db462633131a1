"""Matched arms compared at several small depths, and what that predicts at a large one."""

from typing import Any

from prefect import flow, get_run_logger

from flows.children import cancel_children
from flows.compare import Children
from flows.deployed import as_deployed, taking
from flows.rungs import run_ladder
from tasks.reports.steps import show_ladder, show_verdict
from tasks.store.root import Root
from tasks.verdict.rungs import LadderForm


@flow(name="ladder", flow_run_name="{name}-to-d{to}", on_cancellation=[cancel_children])
@as_deployed
@taking(LadderForm)
def ladder(form: LadderForm) -> dict[str, Any]:
    """Compare the arms at several depths, and predict how far they differ at a larger one that is not trained.

    Each depth is a comparison with a plan of its own, registered before its first run. What is complete under the root is reused.
    A ladder that would cost more than a part (`most`) of a direct comparison is refused before anything is spent.
    """
    store = Root(form.root)
    climbed = run_ladder(
        store, form.ladder(), Children(store, form.root), lambda rung: show_verdict(store, rung.made, rung.verdict)
    )
    report = show_ladder(store, climbed.made, climbed.ladder)
    for sentence in climbed.ladder.sentences:
        get_run_logger().info(sentence)
    get_run_logger().info("Report: %s", report)
    return {"ladder": climbed.made.name, "sentences": climbed.ladder.sentences, "report": report}
