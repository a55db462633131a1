"""The experiments of the study under one root, by the code of `fabrating compare` and `fabrating ladder`, on all GPUs of this host.

All of a stage is registered before its first run, trained as one batch and scored as one. Other processes judge it while the next stage
trains.
"""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.study.ahead import register_all, score_all, train_all
from flows.comparison import Hands, run_comparison
from flows.leaks import search_arm
from flows.rungs import run_ladder
from flows.sequence import Steps, prepare_arms
from tasks.cores import cores
from tasks.corpus.pool.handle import open_pool
from tasks.progress import Evaluations, Progress
from tasks.records.layout import arm_id
from tasks.spec import Arm, Texts
from tasks.spec.written import read
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.form import ComparisonForm
from tasks.verdict.rungs import LadderForm

EXPERIMENTS = Path(__file__).with_name("experiments")
DEPTHS = {"": 6, "-d8": 8, "-d12": 12}
"""{what an experiment's name ends in: its depth}, of those that are asked at several."""
FIRST = (
    *(f"{target}{depth}" for target in ("best", "handbook", "questions") for depth in DEPTHS),
    "ratings",
    "handbook-ratings",
    "repetition",
    "junk",
)
SECOND = ("scale", "scale-d10", "scale-handbook", "scale-handbook-d10", "aa")
STAGES = (FIRST, SECOND)
"""In the order of their worth, should the time not do for all. A new file is added by its name."""
LADDERS = {"scale": "scale-d10", "scale-handbook": "scale-handbook-d10"}
"""{ladder: the comparison that measures what it predicts}"""
LADDER = {"to": 10, "depths": [4, 6, 8], "most": 10.0}
"""More than d10 itself may cost: it is trained, too, to see whether the prediction holds."""
ORDER = tuple(name for stage in STAGES for name in stage if name not in LADDERS)
SMALL_DEPTHS = {4: 1, 6: 2, 8: 3, 10: 4, 12: 4}
SMALL = {"sequence_length": 128, "eval_every": 1_000, "precision": "fp32", "device": "cpu"}
"""A training that a CPU does in seconds: whether the road works, and nothing about data."""


def form_of(name: str, small: bool = False) -> ComparisonForm:
    """An experiment by its file's name, a ladder too. Raises InputError for what cannot work in it."""
    form = read(EXPERIMENTS / f"{name}.yaml", ComparisonForm)
    if name in LADDERS:
        form = LadderForm.model_validate(form.model_dump(exclude_unset=True) | LADDER)
    return _small(form) if small else form


def asked(name: str, small: bool = False) -> tuple[ComparisonForm, ComparisonSpec]:
    """The form and what it asks. Raises InputError for what cannot work in it."""
    form = form_of(name, small)
    spec = form.spec()
    spec.require_matched()
    return form, spec


def specs_of(name: str, small: bool = False) -> list[ComparisonSpec]:
    """The comparisons that an experiment consists of: itself, or the rungs of a ladder."""
    form = form_of(name, small)
    if isinstance(form, LadderForm):
        return list(form.ladder().rungs().values())
    return [form.spec()]


def _small(form: ComparisonForm) -> ComparisonForm:
    """An eighth of the text, two layers instead of six, two replicates, and a few steps."""
    pool = {"source": f"{form.data.source}/part_00.parquet", "vocab_size": 1_024, "holdout_documents": 24}
    train = {**SMALL, "depth": SMALL_DEPTHS[form.train.depth]}
    by_ratio = form.train.tokens is None
    train |= (
        {"batch_tokens": 256, "tokens_per_parameter": 0.004} if by_ratio else {"batch_tokens": 512, "tokens": 4_096}
    )
    changed = {
        "data": form.data.model_copy(update=pool),
        "train": form.train.model_copy(update=train),
        "texts": [texts.model_copy(update={"documents": 16}) for texts in form.texts],
        "replicates": 2,
        "stop": None,
        "root": f"{form.root}-small",
    }
    if isinstance(form, LadderForm):
        changed |= {"to": SMALL_DEPTHS[form.to], "depths": [SMALL_DEPTHS[depth] for depth in form.depths], "most": 9.0}
    return form.model_copy(update=changed)


class Aloud(Hands):
    """The hands of this process, which say what they do and when."""

    def __init__(self, root: Root, steps: Steps):
        super().__init__(root, steps)
        self._began = time.monotonic()

    def say(self, message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {time.monotonic() - self._began:5.0f} s  {message}", flush=True)

    def progress(self, run: PlannedRun) -> Progress:
        found = Evaluations()

        def told(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
            if evaluated := found.news(done, total, counters):
                self.say(f"{run.id}: {evaluated}")

        return told

    def train(self, runs: Sequence[tuple[ComparisonPlan, PlannedRun]]) -> None:
        started = time.monotonic()
        super().train(runs)
        self.say(f"{len(runs)} runs in {time.monotonic() - started:.1f} s")


def prepare(root: Root, specs: Sequence[ComparisonSpec]) -> None:
    """Prepare every arm that the experiments may train on in one pass over the text of their pool, so that no GPU waits for one.

    Near copies of texts are counted, too.
    """
    pool, training = specs[0].pool, specs[0].training
    pool_id = open_pool(root, pool).pool_id
    arms: dict[str, Arm] = {}
    texts: dict[str, dict[str, Texts]] = {}
    for spec in specs:
        most = replace(spec, seeds=range(1, spec.stop.max_replicates + 1)) if spec.stop else spec
        for drawn in (each for arm in most.arms for each in most.draws_of(arm)):
            id = arm_id(drawn, pool, pool_id)
            arms[id] = drawn
            texts.setdefault(id, {}).update({each.name: each for each in spec.texts})
    for made in prepare_arms(root, pool, list(arms.values()), training, Steps()):
        search_arm(root, made.arm_id, list(texts[made.arm_id].values()), Steps())


def run(names: Sequence[str] = (), small: bool = False) -> None:
    """Train and judge what is missing of each experiment (none named: of all); prints the sentences of each as soon as there are any."""
    wanted = [[name for name in stage if not names or name in names] for stage in STAGES]
    stages = [stage for stage in wanted if stage]
    specs = {name: specs_of(name, small) for stage in stages for name in stage}
    if unknown := set(names) - set(specs):
        specs_of(min(unknown), small)  # says that there is no such file
    root = Root(form_of("best", small).root)
    hands = Aloud(root, Steps())
    hands.say("preparing all arms")
    prepare(root, [spec for each in specs.values() for spec in each])
    plans = {name: register_all(root, each, hands) for name, each in specs.items()}
    hands.say(f"{len(plans)} experiments are registered")
    judged: list[Future[None]] = []
    with _processes(min(len(specs), max(1, cores() // 2))) as processes:
        for stage in stages:
            of_stage = [plan for name in stage for plan in plans[name]]
            train_all(root, of_stage, hands)
            hands.say(f"{score_all(root, of_stage, hands)} runs are scored on texts and questions")
            judged += [processes.submit(_judge, name, small) for name in stage]
        for each in judged:
            each.result()
    hands.say("all is judged")


def _judge(name: str, small: bool) -> None:
    """Judge an experiment whose runs are there, or go on by its stopping rule; in a process of its own."""
    form = form_of(name, small)
    root = Root(form.root)
    hands = Aloud(root, Steps())
    if isinstance(form, LadderForm):
        sentences = run_ladder(root, form.ladder(), hands).ladder.sentences
    else:
        sentences = run_comparison(root, form.spec(), hands).verdict.sentences
    for sentence in sentences:
        hands.say(f"{name}: {sentence}")


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
