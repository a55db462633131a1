"""Blobs -> pool -> arm: everything of an experiment that needs no GPU."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from prefect import flow, get_run_logger
from pydantic import Field

from flows.deployed import as_deployed, named
from flows.sequence import Steps, prepare_arms
from tasks.corpus.arm.plan import ArmPlan
from tasks.corpus.steps import workers
from tasks.corpus.workers import Workers
from tasks.progress import Progress
from tasks.records.cost import estimate_cost
from tasks.records.ledger import entries
from tasks.records.scaling import budget_tokens
from tasks.reports.steps import show_plan, show_prepared
from tasks.spec import Arm, Experiment, Pool, Training, Url
from tasks.steps import progress, step
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.tokens.forecast import forecast_tokens

T = TypeVar("T")
MORE: list[Arm] = []  # the run form shows plain default values


class TaskSteps(Steps):
    """Each step is a Prefect task. Of a step that is spread over workers, each batch is one."""

    def run(self, title: str, work: Callable[[Progress], T]) -> T:
        return step(title, work)

    def spread(self, title: str, work: Callable[[Progress, Workers], T]) -> T:
        with progress(title) as shown:
            return work(shown, workers())


@flow(name="prepare", flow_run_name=named("{arm.name}-{data.name}"))
@as_deployed
def prepare(
    data: Pool = Pool(),
    root: Url = DEFAULT_ROOT,
    arm: Arm = Arm(),
    train: Training = Training(),
    more: Annotated[list[Arm], Field(max_length=4096)] = MORE,
) -> dict[str, object]:
    """Index a pool, set its holdout aside, select arms and pack them into rows of tokens.

    The plan of each (documents, tokens, steps, time and cost) is shown before any text is read: exact where a budget is given, else as a
    range.

    Args:
        data: The pool: where the rated documents are, how they are scored, what is held out.
        root: Where artifacts are kept: a folder, or az://container/prefix (s3://, gs://) that all workers reach. Left as it is: FABRATING_ROOT.
        arm: Which documents of the pool are taken, and in which order.
        train: How the arms will be trained: says the length of a row, and what the plans cost.
        more: Further arms of the pool, such as draws of the arm with other seeds: the pool's text is read once for all.
    """
    store = Root(root)
    arms = [arm, *more]
    ledger = entries(store)

    def planned(arm: Arm, plan: ArmPlan) -> None:
        budget = budget_tokens(train, data.vocab_size)
        bounds: dict[str, int] = {"": budget} if budget else forecast(arm, plan)
        costs = [
            estimate_cost(
                train,
                tokens,
                vocab_size=data.vocab_size,
                read_bytes=plan.bytes_to_read,
                disk_bytes=plan.disk_bytes,
                label=label,
                ledger=ledger,
            )
            for label, tokens in bounds.items()
        ]
        show_plan(Experiment(pool=data, arm=arm, training=train), plan.as_dict(), costs)
        if plan.bad_files:
            named = "; ".join(f"{name} {reason}" for name, reason in plan.bad_files.items())
            get_run_logger().warning("Files left out: %d. %s", plan.bad_files_count, named)

    def forecast(arm: Arm, plan: ArmPlan) -> dict[str, int]:
        low, high = forecast_tokens(
            store,
            plan.pool_id,
            arm,
            train,
            data.vocab_size,
            documents=plan.documents,
            size=plan.text_bytes,
            counted=plan.tokens,
        )
        return {"at least": low, "at most": high}

    prepared = prepare_arms(store, data, arms, train, TaskSteps(), planned)
    for one in prepared:
        show_prepared(one.arm_id, one.facts)
    return {"pool": prepared[0].pool_id, "arms": [one.arm_id for one in prepared]}
