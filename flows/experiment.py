"""One arm from pool to score: prepare on the cpu pool, train on the gpu pool, show the scores."""

from prefect import flow, get_run_logger

from flows.children import cancel_children, preparation, run_children, training
from flows.deployed import as_deployed, named
from tasks.corpus.arm.listed import require_same_list
from tasks.corpus.steps import find_pool
from tasks.engines import entry as engine
from tasks.records.cost import estimate_cost
from tasks.records.layout import ArmFolder, RunFolder, arm_id, run_id
from tasks.records.ledger import call, entries
from tasks.records.packed import PackedPlan
from tasks.reports.live import RunsTable, Standing
from tasks.reports.steps import show_loss_curve, show_plan, show_run_report, show_scores, show_standing
from tasks.spec import Arm, Experiment, Label, Pool, Seed, Training, Url
from tasks.store.root import DEFAULT_ROOT, Root


@flow(name="experiment", flow_run_name=named("{arm.name}-d{train.depth}-s{seed}"), on_cancellation=[cancel_children])
@as_deployed
def experiment(
    data: Pool = Pool(),
    root: Url = DEFAULT_ROOT,
    arm: Arm = Arm(),
    train: Training = Training(),
    seed: Seed = 1,
    name: Label | None = None,
) -> dict[str, object]:
    """Prepare an arm, train on it and score the model on the common holdout.

    The plan of the training is shown when the arm is packed: then its steps and what it reads are exact.

    What is complete under the root is reused, and a run that stopped half-way resumes where it was. What is damaged
    is found by its checksums and made again.

    Args:
        data: The pool: where the rated documents are, how they are scored, what is held out.
        root: Where artifacts are kept: a folder, or az://container/prefix (s3://, gs://) that all workers reach. Left as it is: FABRATING_ROOT.
        arm: Which documents of the pool the model is trained on, and in which order.
        train: How the model is trained: the same for all arms of a comparison.
        seed: Seed of the run: initial weights, rows of a budget, order of a shuffled arm. Repeat an arm with other seeds for an error bar.
        name: What you call the run: shown here, in the ledger and in W&B. It changes nothing else. Empty: arm, depth and seed.
    """
    return run_experiment(Experiment(pool=data, arm=arm, training=train, seed=seed), root, name)


def run_experiment(whole: Experiment, root: str, name: str | None) -> dict[str, object]:
    """Let children make what is missing of an experiment, and show its scores. Called in a flow."""
    data, arm, train, seed = whole.pool, whole.arm, whole.training, whole.seed
    engine.check(train, [arm])
    store, log = Root(root), get_run_logger()
    pool = find_pool(store, data)
    chosen = arm_id(arm, data, pool)
    require_same_list(store, arm, chosen)
    run = run_id(whole, chosen)
    if store.intact(ArmFolder(chosen).packed(train.sequence_length, train.packing)):
        log.info("Arm %s is complete: nothing to prepare", chosen)
    else:
        run_children([preparation({chosen: arm}, data, train, root)])
    if finished := store.find(RunFolder(run).result):
        store.require_current([finished])
        call(store, run, name)
        log.info("Run %s is complete: nothing to train", run)
    else:
        plan = PackedPlan.make(store, chosen, train, seed, data.vocab_size, arm.epochs)
        cost = estimate_cost(train, plan.plan.tokens, vocab_size=data.vocab_size, ledger=entries(store))
        show_plan(whole, plan.to_facts(), [cost])
        pages: dict[str, str] = {}
        table = RunsTable(store, {run: whole})
        with show_standing(run, lambda: Standing(table.rows(), "The report comes at the end."), pages):
            run_children([training(run, chosen, train, seed, root, name=name)], pages)
    result = store.open(RunFolder(run).result)
    show_loss_curve(store, [run])
    show_scores(store, run, {run: whole})
    log.info("%s: %.4f bits per byte on the holdout", run, result.facts["bpb"])
    show_run_report(store, run)
    return {"run": run, "arm": chosen, "pool": pool, "bpb": result.facts["bpb"]}
