"""Matched arms, trained with several seeds each, and the verdict on them: which is better, by how much, how sure."""

import contextvars
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from flows.children import cancel_children, run_child
from tasks.corpus.steps import find_pool
from tasks.errors import InputError
from tasks.records.code import Code, other_code
from tasks.records.cost import Estimate, batch_tokens, estimate, total
from tasks.records.layout import REPORT, ArmFolder, PoolFolder, RunFolder, arm_id, run_id
from tasks.records.ledger import entries, find, spread_between_seeds
from tasks.records.verdict import Pairing, Target
from tasks.reports.report import write_verdict
from tasks.reports.steps import show_estimate, show_loss_curve, show_scores, show_verdict
from tasks.reports.wandb_verdict import send_verdict
from tasks.spec import Arm, Experiment, Name, Pool, Texts, Training
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.tokens import steps as tokens
from tasks.verdict.judge import judge
from tasks.verdict.matched import differences, require_matched
from tasks.verdict.planning import BESIDE_BYTES, equal_budget, what_seeds_show

# The run form shows plain default values, not ones that a function makes.
ARMS = [Arm(), Arm(name="rand16", select="random")]
SEEDS = [1, 2, 3]
ALLOW: list[str] = []
TEXTS: list[Texts] = []
Arms = Annotated[list[Arm], Field(min_length=2)]
Seeds = Annotated[list[int], Field(min_length=1)]


@flow(name="compare", flow_run_name="{name}", on_cancellation=[cancel_children])
def compare(
    arms: Arms = ARMS,
    seeds: Seeds = SEEDS,
    data: Pool = Pool(),
    train: Training = Training(),
    root: str = DEFAULT_ROOT,
    name: Name = "top16-vs-rand16",
    target: Target = "all",
    pairing: Pairing = "auto",
    budget: Literal["tokens", "bytes"] = "tokens",
    allow: list[str] = ALLOW,
    texts: list[Texts] = TEXTS,
    core: bool = False,
) -> dict[str, Any]:
    """Train every arm with every seed on the same budget, and judge which is better with an error bar.

    Refuses arms that differ in more than their selection before anything is spent. What is complete under the root is not
    made again.

    Args:
        arms: Two or more selections of the pool. Their order must be the same, unless allow names arm.order.
        seeds: Seeds of the initial weights. Two seeds an arm are the fewest that make a verdict, three or more a good one.
        data: The pool that all arms draw from, with the holdout that all are scored on.
        train: How every arm is trained. Its tokens are the common budget; empty: as many as the smaller arm's packed rows hold.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        name: Name of the verdict.
        target: Which documents of the holdout decide: all of them, as they come in the pool, or one half of them by score.
        pairing: Whether runs of two arms are paired by seed: auto (from 3 seeds on), seed (always) or none.
        budget: What is equal between arms: tokens (those of the smaller arm), or bytes of text.
        allow: Differences beside selection that are meant, by their path, such as arm.order.
        texts: Folders of texts that no arm has trained on, to score every run on beside the holdout.
        core: Compare nanochat's CORE tasks too. Needs nanochat and its evaluation bundle on the hosts of the gpu pool.
    """
    store, log = Root(root), get_run_logger()
    _require_matched(arms, seeds, data, train, allow)
    pool = find_pool(root, data)["pool_id"]
    ids = {arm.name: arm_id(arm, pool) for arm in arms}
    _prepare(store, arms, ids, data, train, root)
    packed = {label: store.find(ArmFolder(arm).packed(train.sequence_length)).facts for label, arm in ids.items()}
    budgets = equal_budget(packed, train.tokens, budget)
    # The batch is said too: the scaling rule would choose another one for another number of tokens.
    batch = batch_tokens(train, min(budgets.values()), data.vocab_size)
    trainings = {
        label: train.model_copy(update={"tokens": count, "batch_tokens": batch}) for label, count in budgets.items()
    }
    runs = [
        (run_id(whole, ids[arm.name]), whole)
        for arm in arms
        for seed in seeds
        for whole in [Experiment(pool=data, arm=arm, training=trainings[arm.name], seed=seed)]
    ]
    missing = [(run, whole) for run, whole in runs if not store.find(RunFolder(run).result)]
    log.info("%d of %d runs are complete, %d are to train", len(runs) - len(missing), len(runs), len(missing))
    if missing:
        _require_same_code(store, [run for run, _ in runs], allow)
        _show_cost(store, name, [whole for _, whole in missing], pool, data, arms=len(arms), seeds=len(seeds))
    _all_at_once(
        [
            lambda run=run, whole=whole: run_child("train/train", f"train:{run}", _training(whole, ids, root), run)
            for run, whole in missing
        ]
    )
    outside = _score(store, [run for run, _ in runs], pool, texts, core, root)
    by_arm = {arm.name: [run for run, whole in runs if whole.arm == arm] for arm in arms}
    meant = [*allow, *(BESIDE_BYTES if budget == "bytes" else ())]
    verdict = judge(store, name, by_arm, target=target, pairing=pairing, allow=meant, outside=outside, core=core)
    made = write_verdict(store, verdict)
    send_verdict(store, made, verdict, train.wandb)
    show_loss_curve(store, [run for run, _ in runs], [whole.arm.name for _, whole in runs], name)
    facts = {run: store.find(RunFolder(run).result).facts for run, _ in runs}
    show_scores(name, [{"run": run, "arm": whole.arm.name, "seed": whole.seed, **facts[run]} for run, whole in runs])
    show_verdict(store, made, verdict)
    for sentence in verdict.sentences:
        log.info(sentence)
    return {"verdict": made.name, "sentences": verdict.sentences, "report": str(made.path / REPORT)}


def _require_matched(
    arms: Sequence[Arm], seeds: Sequence[int], data: Pool, train: Training, allow: Sequence[str]
) -> None:
    """Before anything is spent: arms have names of their own, different selections, and nothing else between them."""
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise InputError(f"The arms are named {', '.join(names)}: give each a name of its own.")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"The seeds are {', '.join(map(str, seeds))}: give each one once.")
    wholes = [Experiment(pool=data, arm=arm, training=train) for arm in arms]
    found = [differences(a, b) for a, b in pairwise(wholes)]
    require_matched(names, found, allow)


def _require_same_code(store: Root, runs: Sequence[str], allow: Sequence[str]) -> None:
    """Runs that are complete were trained by the code that is to train the others, as far as the ledger knows."""
    now = Code.of_this_process()
    for run in runs:
        entry = find(store, run) if store.find(RunFolder(run).result) else None
        other = other_code(entry.last, now) if entry else None
        if other and "commit" not in allow:
            then, would = other.split(" against ")
            raise InputError(
                f"{run} was trained by {then}, the missing runs would be by {would}: allow the difference by name (allow: commit), or "
                f"delete runs/{run} to train it again."
            )


def _prepare(store: Root, arms: Sequence[Arm], ids: Mapping[str, str], data: Pool, train: Training, root: str) -> None:
    """Children prepare what is missing: the first arm makes index, holdout and tokenizer, the others run side by side."""
    missing = [arm for arm in arms if not store.find(ArmFolder(ids[arm.name]).packed(train.sequence_length))]
    shared = {"data": data.model_dump(), "train": train.model_dump(), "root": root}
    jobs = [
        lambda arm=arm: run_child(
            "prepare/prepare", f"prepare:{ids[arm.name]}", {"arm": arm.model_dump(), **shared}, ids[arm.name]
        )
        for arm in missing
    ]
    for job in jobs[:1]:
        job()
    _all_at_once(jobs[1:])


def _training(whole: Experiment, ids: Mapping[str, str], root: str) -> dict[str, Any]:
    arm, train = ids[whole.arm.name], whole.training.model_dump()
    return {"arm": arm, "train": train, "seed": whole.seed, "root": root}


def _score(store: Root, runs: Sequence[str], pool: str, texts: Sequence[Texts], core: bool, root: str) -> list[str]:
    """Children score what is missing of the texts and of CORE. Returns the names of the texts as encoded."""
    names = [tokens.outside(root, pool, one) for one in texts]
    wanted = {run: RunFolder(run).beside(names, core) for run in runs}
    missing = [run for run in runs if not all(store.find(part) for part in wanted[run])]
    given = {"texts": [one.model_dump() for one in texts], "core": core, "root": root}
    _all_at_once(
        [lambda run=run: run_child("score/score", f"score:{run}", {"run": run, **given}, run) for run in missing]
    )
    return names


def _show_cost(
    store: Root, name: str, missing: Sequence[Experiment], pool: str, data: Pool, *, arms: int, seeds: int
) -> None:
    """What the missing runs will cost, one row an arm, and what this many seeds can show."""
    ledger = entries(store)
    held = store.find(PoolFolder(pool).evaluation)
    costs: list[Estimate] = []
    for label in dict.fromkeys(whole.arm.name for whole in missing):
        ours = [whole for whole in missing if whole.arm.name == label]
        training = ours[0].training
        options = {"vocab_size": data.vocab_size, "holdout_tokens": held.facts["tokens"], "ledger": ledger}
        costs.append(estimate(training, training.tokens, runs=len(ours), label=label, **options))
    if len(costs) > 1:
        costs.append(total(costs, "all"))
    show_estimate(name, costs, [what_seeds_show(spread_between_seeds(ledger, missing[0].training), arms, seeds)])


def _all_at_once(jobs: Sequence[Callable[[], Any]]) -> None:
    """Run the jobs side by side, each in this flow run's context. The first error is raised when all have ended."""
    if not jobs:
        return
    with ThreadPoolExecutor(len(jobs)) as pool:
        started = [pool.submit(contextvars.copy_context().run, job) for job in jobs]
    for job in started:
        job.result()
