"""The experiments of the study, one after another under one root, by the code of `fabrating compare`: no server, one warm trainer."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from flows.comparison import Hands, Judged, run_comparison
from flows.sequence import Steps, prepare_arm
from tasks.cores import cores
from tasks.corpus.pool.handle import open_pool
from tasks.records.layout import arm_id
from tasks.spec import Arm, Pool, Training
from tasks.spec.written import read
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.form import ComparisonForm

EXPERIMENTS = Path(__file__).with_name("experiments")
ORDER = ("best", "ratings", "handbook", "repetition", "junk", "aa")
"""The questions first, then the controls. A new file is added by its name."""
SMALL = {
    "depth": 2,
    "sequence_length": 128,
    "batch_tokens": 1_024,
    "tokens": 32_768,
    "eval_every": 16,
    "precision": "fp32",
    "device": "cpu",
}
"""A training that a CPU does in seconds: whether the road works, and nothing about data."""


def asked(name: str, small: bool = False) -> tuple[ComparisonForm, ComparisonSpec]:
    """An experiment by its file's name. Raises InputError for what cannot work in it."""
    form = read(EXPERIMENTS / f"{name}.yaml", ComparisonForm)
    if small:
        pool = form.data.model_copy(
            update={"source": f"{form.data.source}/part_00.parquet", "vocab_size": 1_024, "holdout_documents": 64}
        )
        form = form.model_copy(
            update={"data": pool, "train": form.train.model_copy(update=SMALL), "root": f"{form.root}-small"}
        )
    spec = form.spec()
    spec.require_matched()
    return form, spec


class Aloud(Hands):
    """The hands of this process, which say what they do and when."""

    def say(self, message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)

    def train(self, plan: ComparisonPlan, runs: Sequence[PlannedRun]) -> None:
        started = time.monotonic()
        super().train(plan, runs)
        self.say(f"{plan.spec.name}: {len(runs)} runs in {time.monotonic() - started:.1f} s")


def prepare(root: Root, specs: Sequence[ComparisonSpec]) -> None:
    """Prepare every arm that the experiments may train on, several at a time, so that no GPU waits for one.

    The first one makes what a pool has once: index, holdout and tokenizer.
    """
    arms: dict[str, tuple[Pool, Arm, Training]] = {}
    for spec in specs:
        most = replace(spec, seeds=range(1, spec.stop.max_replicates + 1)) if spec.stop else spec
        pool_id = open_pool(root, spec.pool).pool_id
        for arm in most.missing_arms(root, pool_id):
            arms.setdefault(arm_id(arm, spec.pool, pool_id), (spec.pool, arm, spec.training))
    if not arms:
        return
    first, *others = arms.values()
    prepare_arm(root, *first, Steps())
    with ProcessPoolExecutor(max(1, cores() // 2), multiprocessing.get_context("spawn")) as processes:
        for job in [processes.submit(_prepare, root.url, *each) for each in others]:
            job.result()


def _prepare(root: str, pool: Pool, arm: Arm, training: Training) -> None:
    prepare_arm(Root(root), pool, arm, training, Steps())


def run(names: Sequence[str] = ORDER, small: bool = False) -> dict[str, Judged]:
    """Train and judge what is missing of each experiment; prints the sentences of each verdict as soon as there is one."""
    specs = {name: asked(name, small)[1] for name in names}
    root = Root(asked(names[0], small)[0].root)
    hands = Aloud(root, Steps())
    hands.say("preparing all arms")
    prepare(root, list(specs.values()))
    judged = {}
    for name, spec in specs.items():
        judged[name] = run_comparison(root, spec, hands)
        for sentence in judged[name].verdict.sentences:
            hands.say(f"{name}: {sentence}")
    return judged
