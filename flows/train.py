"""Arm -> checkpoints and scores: the part of an experiment that takes a GPU."""

from typing import Annotated

from prefect import State, flow, get_run_logger, runtime
from prefect.exceptions import Abort
from prefect.states import Cancelled
from pydantic import Field

from flows.deployed import as_deployed, named
from flows.recorded import recorded
from tasks.engines import steps
from tasks.errors import InterruptedRun
from tasks.records.layout import run_id
from tasks.records.recall import recall
from tasks.reports.steps import show_loss_curve, show_run_report, show_scores
from tasks.spec import Draw, Id, Label, Name, Seed, Training, Url
from tasks.steps import cancelled, handed_over
from tasks.store.root import DEFAULT_ROOT, Root

# The run form shows plain default values.
HELD: list[Draw] = []


@flow(name="train", flow_run_name=named("{arm}-d{train.depth}-s{seed}"))
@as_deployed
def train(
    arm: Id,
    train: Training = Training(),
    seed: Seed = 1,
    root: Url = DEFAULT_ROOT,
    held: Annotated[list[Draw], Field(max_length=3)] = HELD,
    comparison: Name | None = None,
    name: Label | None = None,
) -> dict[str, object] | State:
    """Train a model on a prepared arm and score it on the pool's holdout.

    A training that was killed resumes from its newest checkpoint when it is run again with the same parameters. One that is
    cancelled saves a checkpoint first.

    Args:
        arm: Name of a prepared arm with its fingerprint, such as top16-0a1b2c3d4e: a folder below arms/ of the root.
        train: How the model is trained: the same for all arms of a comparison.
        seed: Seed of the run: initial weights, rows of a budget, order of a shuffled arm.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        held: What the seed does not redraw (init, order, sample): the same in all runs that hold it.
        comparison: The comparison that the run belongs to, if any: all its runs are trained on the device and by the attention path of the first.
        name: What you call the run: shown here, in the ledger and in W&B. It changes nothing else.
    """
    store = Root(root, make=False)
    experiment, pool = recall(store, arm, train, seed, held)
    run = run_id(experiment, arm)
    try:
        with recorded(
            store, experiment, pool, arm, flow_run=str(runtime.flow_run.id), name=name, comparison=comparison
        ) as facts:
            facts |= steps.train(root, experiment, pool, arm, comparison)
    except Exception as error:
        if handed_over():  # what becomes of the run is for the other process to report
            get_run_logger().warning("%s", error)
            raise Abort(str(error)) from error
        if isinstance(error, InterruptedRun) and cancelled():
            return Cancelled(message=str(error))
        raise
    show_loss_curve(store, [run])
    show_scores(store, run, {run: experiment})
    show_run_report(store, run)
    return {"run": run, "arm": arm, "pool": pool}
