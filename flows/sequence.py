"""The order of work as plain functions: blobs -> pool -> arm -> packed rows, and from an arm to a scored model.

The command line calls them as they are. The flows pass `Steps` of their own, which make each step a Prefect task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from flows.recorded import recorded
from tasks.cores import limited
from tasks.corpus.arm.plan import ArmPlan, passes
from tasks.corpus.arm.traits import wanted_columns
from tasks.corpus.pool.handle import PoolHandle, open_pool
from tasks.corpus.prepare import (
    build_arms,
    build_holdout,
    build_index,
    build_sample,
    build_strata,
    plan_arm,
    set_damaged_aside,
)
from tasks.corpus.workers import Workers, local_workers
from tasks.engines import entry as engine
from tasks.progress import Progress, Stop, never, silent
from tasks.records.layout import ArmFolder, RunFolder
from tasks.records.near import HOLDOUT
from tasks.records.recall import recall
from tasks.reports.report import leave_report
from tasks.spec import Arm, Draw, Pool, Questions, Score, Texts, Training
from tasks.store.artifact import Artifact, Manifest
from tasks.store.root import Root
from tasks.tokens.evaluation import encode_holdout
from tasks.tokens.outside import encode_outside
from tasks.tokens.pack import pack_arms
from tasks.tokens.questions import encode_questions
from tasks.tokens.train import train_tokenizer

T = TypeVar("T")
Asked = TypeVar("Asked", Texts, Questions)


class Steps:
    """How the steps of a sequence run: here one after another, in this process."""

    def __init__(self, progress: Progress = silent):
        self._progress = progress

    def run(self, title: str, work: Callable[[Progress], T]) -> T:
        """Run a step that is done as a whole."""
        return work(self._progress)

    def spread(self, title: str, work: Callable[[Progress, Workers], T]) -> T:
        """Run a step that hands batches of blobs to `Workers`."""
        return work(self._progress, local_workers())


@dataclass(frozen=True)
class Prepared:
    """What `prepare_arms` made or found of an arm."""

    pool_id: str
    arm_id: str
    text: Artifact
    packed: Artifact
    near: Manifest

    @property
    def facts(self) -> dict[str, Any]:
        """What was counted in the text, in the packed rows and of near copies."""
        near = {"near_copies": self.near.facts["copies"], "leaked_documents": self.near.facts["leaked"]}
        return {**self.text.facts, **({} if self.near.facts["removed"] else near), **self.packed.facts}


def prepare_arm(
    root: Root,
    pool: Pool,
    arm: Arm,
    training: Training,
    steps: Steps,
    planned: Callable[[ArmPlan], None] = lambda plan: None,
) -> Prepared:
    """`prepare_arms` for one arm."""
    return prepare_arms(root, pool, [arm], training, steps, lambda _, plan: planned(plan))[0]


def prepare_arms(
    root: Root,
    pool: Pool,
    arms: Sequence[Arm],
    training: Training,
    steps: Steps,
    planned: Callable[[Arm, ArmPlan], None] = lambda arm, plan: None,
) -> list[Prepared]:
    """Index a pool, set its holdout aside, select arms and pack them for a training. The pool's text is read once for all of them,
    or for as many at a time as the disk holds.

    Steps that are complete are skipped; damaged ones are made again. `planned` gets the plan of each arm before any text of an arm is read.
    Raises InputError when a plan cannot be carried out.
    """
    handle = steps.run(f"List {pool.address}", lambda _: open_pool(root, pool))
    with limited(pool.workers), handle.borrowed(root):
        return _prepare(root, handle, arms, training, steps, planned)


def _prepare(
    root: Root,
    handle: PoolHandle,
    arms: Sequence[Arm],
    training: Training,
    steps: Steps,
    planned: Callable[[Arm, ArmPlan], None],
) -> list[Prepared]:
    pool, called = handle.pool, _called(arms)
    steps.run(f"Checksums of {called}", lambda _: set_damaged_aside(root, handle, arms))
    columns = list(dict.fromkeys(each for arm in arms for each in wanted_columns(arm, pool)))
    steps.spread(
        f"Index of {pool.name}",
        lambda progress, workers: build_index(root, handle, columns, mapper=workers, progress=progress),
    )
    steps.run(f"Holdout of {pool.name}", lambda progress: build_holdout(root, handle, progress=progress))
    steps.run(f"Strata of {pool.name}", lambda progress: _build_strata(root, handle, arms, progress))
    plans = steps.run(f"Plan of {called}", lambda _: [plan_arm(root, handle, arm) for arm in arms])
    for arm, plan in zip(arms, plans, strict=True):
        planned(arm, plan)
    texts: dict[str, Artifact] = {}
    for together in passes(plans):
        some = [arms[number] for number in together]
        made = steps.spread(
            f"Text of {_called(some)}",
            lambda progress, workers, some=some: build_arms(root, handle, some, mapper=workers, progress=progress),  # type: ignore[misc]
        )
        texts |= {plans[number].arm_id: text for number, text in zip(together, made, strict=True)}
    steps.run(f"Sample of {pool.name}", lambda progress: build_sample(root, handle, progress=progress))
    pool_id = handle.pool_id
    steps.run(
        f"Tokenizer of {pool.name}",
        lambda progress: train_tokenizer(root, pool_id, pool.vocab_size, progress=progress),
    )
    steps.run(f"Evaluation tokens of {pool.name}", lambda progress: encode_holdout(root, pool_id, progress=progress))
    ids, length, packing = [plan.arm_id for plan in plans], training.sequence_length, training.packing
    packed = steps.run(
        f"Packed rows of {called}", lambda progress: pack_arms(root, ids, pool_id, length, packing, progress)
    )
    return [Prepared(pool_id, id, texts[id], packed[id], root.manifest(ArmFolder(id).near(HOLDOUT))) for id in ids]


def encode_beside(
    root: Root, pool_id: str, texts: Sequence[Texts], questions: Sequence[Questions], steps: Steps
) -> tuple[list[Artifact], list[Artifact]]:
    """Encode what runs of a pool are scored on beside its holdout: texts from elsewhere, and questions."""

    def encoded(what: str, encode: Callable[[Root, str, Asked, Progress], Artifact], each: Asked) -> Artifact:
        return steps.run(f"{what} {each.name} for {pool_id}", partial(encode, root, pool_id, each))

    return (
        [encoded("Texts", encode_outside, each) for each in texts],
        [encoded("Questions", encode_questions, each) for each in questions],
    )


def _called(arms: Sequence[Arm]) -> str:
    """The names of arms, that of several draws of one arm once."""
    return ", ".join(dict.fromkeys(arm.name for arm in arms))


def _build_strata(root: Root, handle: PoolHandle, arms: Sequence[Arm], progress: Progress) -> None:
    scores: list[Score] = []
    for score in (arm.of(handle.pool).score or {} for arm in arms):
        if score not in scores:
            scores.append(score)
            build_strata(root, handle, score, progress=progress)


def train_arm(
    root: Root,
    arm_id: str,
    training: Training,
    seed: int,
    progress: Progress = silent,
    held: Sequence[Draw] = (),
    comparison: str | None = None,
    name: str | None = None,
    stop: Stop = never,
) -> Artifact:
    """Train on a prepared arm and score the model, with the attempt in the run ledger. Returns the run's result.

    `comparison`: the name of the one whose runs must all have the same hardware, if any. `name`: what a person calls the run. `stop`: asked a
    few times a second; once it says so, the run saves a checkpoint and InterruptedRun is raised.
    """
    experiment, pool_id = recall(root, arm_id, training, seed, held)
    with recorded(root, experiment, pool_id, arm_id, name=name, comparison=comparison) as facts:
        result = engine.train(root, experiment, pool_id, arm_id, progress=progress, stop=stop, comparison=comparison)
        facts |= result.facts
    leave_report(root, RunFolder.of(result.name).id)
    return result
