"""The experiments of the study, one after another under one root, by the code of `fabrating compare`: no server, one warm trainer."""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from flows.comparison import Hands, Judged, run_comparison
from flows.sequence import Steps, prepare_arm
from tasks.cores import cores
from tasks.spec import Arm, Pool, Training
from tasks.spec.written import read
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.form import ComparisonForm

EXPERIMENTS = Path(__file__).with_name("experiments")
ORDER = ("best", "ratings", "junk", "repetition", "aa", "handbook")
"""The question first; texts from elsewhere last, because scoring them ends the warm trainer. A new file is added by its name."""
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
        pool = form.data.model_copy(update={"source": f"{form.data.source}/part_00.parquet", "vocab_size": 1_024})
        form = form.model_copy(
            update={"data": pool, "train": form.train.model_copy(update=SMALL), "root": f"{form.root}-small"}
        )
    spec = form.spec()
    spec.require_matched()
    return form, spec


class Together(Hands):
    """The hands of this process, which say what they do and prepare several arms at a time."""

    def say(self, message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)

    def prepare(self, spec: ComparisonSpec, arms: Mapping[str, Arm]) -> None:
        """The first arm makes what a pool has once: index, holdout and tokenizer."""
        if not arms:
            return
        first, *others = arms.values()
        prepare_arm(self.root, spec.pool, first, spec.training, self.steps)
        self.say(f"{spec.name}: {first.name} is prepared, {len(others)} arms to go")
        if not others:
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(len(others), max(1, cores() // 2)), context) as processes:
            jobs = [processes.submit(_prepare, self.root.url, spec.pool, arm, spec.training) for arm in others]
            for job in jobs:
                job.result()

    def train(self, plan: ComparisonPlan, runs: Sequence[PlannedRun]) -> None:
        started = time.monotonic()
        super().train(plan, runs)
        self.say(f"{plan.spec.name}: {len(runs)} runs in {time.monotonic() - started:.1f} s")


def _prepare(root: str, pool: Pool, arm: Arm, training: Training) -> None:
    prepare_arm(Root(root), pool, arm, training, Steps())


def run(names: Sequence[str] = ORDER, small: bool = False) -> dict[str, Judged]:
    """Train and judge what is missing of each experiment; prints the sentences of each verdict as soon as there is one."""
    judged = {}
    for name in names:
        form, spec = asked(name, small)
        root = Root(form.root)
        judged[name] = run_comparison(root, spec, Together(root, Steps()))
        for sentence in judged[name].verdict.sentences:
            print(f"{name}: {sentence}", flush=True)
    return judged
