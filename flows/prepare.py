"""Blobs -> pool -> arm: everything of an experiment that needs no GPU."""

from collections.abc import Callable
from typing import TypeVar

from prefect import flow, get_run_logger

from flows.deployed import as_deployed, named
from flows.sequence import Steps, prepare_arm
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
) -> dict[str, object]:
    """Index a pool, set its holdout aside, select an arm and pack it into rows of tokens.

    The plan (documents, tokens, steps, time and cost) is shown before any text is read: exact where a budget is given, else as a
    range.

    Args:
        data: The pool: where the rated documents are, how they are scored, what is held out.
        root: Where artifacts are kept: a folder, or az://container/prefix (s3://, gs://) that all workers reach. Left as it is: FABRATING_ROOT.
        arm: Which documents of the pool are taken, and in which order.
        train: How the arm will be trained: says the length of a row, and what the plan costs.
    """
    store = Root(root)
    experiment = Experiment(pool=data, arm=arm, training=train)

    def planned(plan: ArmPlan) -> None:
        budget = budget_tokens(train, data.vocab_size)
        bounds: dict[str, int] = {"": budget} if budget else forecast(plan)
        costs = [
            estimate_cost(
                train,
                tokens,
                vocab_size=data.vocab_size,
                read_bytes=plan.bytes_to_read,
                disk_bytes=plan.disk_bytes,
                label=label,
                ledger=entries(store),
            )
            for label, tokens in bounds.items()
        ]
        show_plan(experiment, plan.as_dict(), costs)
        if plan.bad_files:
            named = "; ".join(f"{name} {reason}" for name, reason in plan.bad_files.items())
            get_run_logger().warning("Files left out: %d. %s", plan.bad_files_count, named)

    def forecast(plan: ArmPlan) -> dict[str, int]:
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

    prepared = prepare_arm(store, data, arm, train, TaskSteps(), planned)
    show_prepared(prepared.arm_id, prepared.facts)
    return {"pool": prepared.pool_id, "arm": prepared.arm_id}
