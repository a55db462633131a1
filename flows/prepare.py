"""Blobs -> pool -> arm: everything of an experiment that needs no GPU."""

from prefect import flow

from tasks.corpus import steps as corpus
from tasks.records.cost import estimate_cost
from tasks.records.ledger import entries
from tasks.reports.steps import show_plan, show_prepared
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.tokens import steps as tokens


@flow(name="prepare", flow_run_name="{arm.name}-{data.name}")
def prepare(
    arm: Arm = Arm(),
    data: Pool = Pool(),
    train: Training = Training(),
    root: str = DEFAULT_ROOT,
) -> dict[str, object]:
    """Index a pool, set its holdout aside, select an arm and pack it into rows of tokens.

    The plan (documents, tokens, steps, time and cost) is shown before any text is read.

    Args:
        arm: Which documents of the pool are taken, and in which order.
        data: The pool: where the rated documents are, how they are scored, what is held out.
        train: How the arm will be trained: says the length of a row, and what the plan costs.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
    """
    corpus.set_damaged_aside(root, data, arm)
    corpus.index_pool(root, data)
    corpus.holdout(root, data)
    plan = corpus.plan(root, data, arm)
    whole = Experiment(pool=data, arm=arm, training=train)
    cost = estimate_cost(
        train,
        train.tokens or plan["tokens"] or plan["text_bytes"] // 4,
        vocab_size=data.vocab_size,
        read_bytes=plan["bytes_to_read"],
        disk_bytes=plan["disk_bytes"],
        ledger=entries(Root(root)),
    )
    show_plan(whole, plan, cost)
    pool, chosen = plan["pool_id"], plan["arm_id"]
    (text,) = corpus.arms(root, data, [arm])
    corpus.sample(root, data)
    tokens.tokenizer(root, pool, data.vocab_size)
    tokens.evaluation(root, pool)
    packed = tokens.pack(root, chosen, pool, train.sequence_length)
    show_prepared(chosen, {**text, **packed})
    return {"pool": pool, "arm": chosen}
