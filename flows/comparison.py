"""The order of work of a comparison as plain functions: arms -> runs -> looks -> verdict.

Only this module decides which runs there are, what is registered before the first of them, when a look is taken and when the comparison
ends. The command line calls it as it is; the flow passes its own `Hands`, which let children do the work.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby

from flows.leaks import search_arm
from flows.sequence import Steps, encode_beside, prepare_arms, train_arm
from tasks.cores import limited
from tasks.corpus.arm.listed import require_same_list
from tasks.corpus.division import build_division, require_columns_there
from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_strata
from tasks.engines import entry as engine
from tasks.engines.shared import OF_ONE_RUN, Scoring, score, share, turns_at_once
from tasks.progress import Progress, Stop, silent
from tasks.records.cost import CostEstimate
from tasks.records.layout import ArmFolder, arm_id
from tasks.records.near import HOLDOUT, of_questions
from tasks.records.questions import require_fit
from tasks.records.verdict import Verdict
from tasks.reports.live import RunsTable, Standing
from tasks.reports.report import write_verdict
from tasks.reports.wandb_verdict import send_verdict
from tasks.spec import Arm
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.verdict import looks, shortened
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.divided import divide
from tasks.verdict.judge import judge
from tasks.verdict.planning import what_steps_are_few
from tasks.verdict.strata import require_enough


class Hands:
    """Who does the work of a comparison, and shows it: here this process and the GPUs of its host, in silence."""

    def __init__(self, root: Root, steps: Steps):
        self.root, self.steps = root, steps

    def say(self, message: str) -> None:
        """Log what a person may want to know."""

    def show_cost(self, plan: ComparisonPlan, costs: Sequence[CostEstimate], notes: Sequence[str]) -> None:
        """Show what the missing runs cost, before they are trained."""

    def progress(self, run: PlannedRun) -> Progress:
        """Who is told how far the training of a run is."""
        return silent

    def following(self, plan: ComparisonPlan, standing: Callable[[], Standing]) -> AbstractContextManager[None]:
        """Show where the runs stand, again and again while the block runs."""
        return contextlib.nullcontext()

    def prepare(self, spec: ComparisonSpec, arms: Mapping[str, Arm]) -> None:
        """Prepare arms, {id: arm}."""
        if arms:
            prepare_arms(self.root, spec.pool, list(arms.values()), spec.training, self.steps)

    def train(self, runs: Sequence[tuple[ComparisonPlan, PlannedRun]]) -> None:
        """Train runs, each of a plan, as many at a time as there are GPUs. A failure stops none of the others; the first error is raised
        at the end. Raises InputError first when CORE is asked for and its questions are not here.
        """

        def one(each: tuple[ComparisonPlan, PlannedRun], stop: Stop) -> None:
            plan, run = each
            whole = run.experiment
            try:
                train_arm(
                    self.root,
                    run.arm_id,
                    whole.training,
                    whole.seed,
                    self.progress(run),
                    whole.held,
                    comparison=plan.spec.alike,
                    stop=stop,
                )
            except OF_ONE_RUN as error:
                self.say(str(error))
                raise

        def host(each: tuple[ComparisonPlan, PlannedRun]) -> tuple[int | None, str, int]:
            training = each[1].experiment.training
            return training.workers, training.device, training.gpus

        if any(plan.spec.core for plan, _ in runs):
            engine.require_core()
        failed: list[Exception] = []
        for (workers, _, _), alike in groupby(runs, host):  # threads share the environment, in which the cores are
            batch = list(alike)
            with limited(workers):
                failed += share(one, batch, turns_at_once(batch[0][1].experiment.training))
        if failed:
            raise failed[0]

    def score(
        self, plan: ComparisonPlan, runs: Sequence[PlannedRun], texts: Sequence[str], questions: Sequence[str]
    ) -> None:
        """Score finished runs on the encoded `texts` and `questions`, and on CORE if the plan asks for it."""
        wanted = [Scoring(run.id, tuple(texts), tuple(questions), plan.spec.core) for run in runs]
        score(self.root, wanted)


@dataclass(frozen=True)
class Judged:
    """A comparison that has come to its end; `made` is the artifact of the verdict and its report."""

    plan: ComparisonPlan
    verdict: Verdict
    made: Artifact


def run_comparison(root: Root, spec: ComparisonSpec, hands: Hands) -> Judged:
    """Make what is missing of a comparison, in one round or by its stopping rule until the answer is clear, and judge it.

    What is complete under the root is found again. Raises InputError when the arms are not matched or cannot be trained as asked.
    """
    spec.require_matched()
    judged: tuple[ComparisonPlan, Verdict] | None = None
    for each in looks.rounds(spec):
        plan = plan_of(root, each, hands)
        if looks.over_budget(root, plan, first=judged is None) and judged:
            judged = judged[0], looks.take(root, *judged, last=True)
            break
        looks.register(root, plan)
        _train(root, plan, hands)
        judged = plan, looks.take(root, plan, _judge(root, plan, hands))
        if looks.is_decided(judged[1]):
            break
        if spec.stop:
            hands.say(f"Look at {plan.replicates} replicates an arm: going on. {judged[1].sentences[0]}")
    assert judged, "a comparison has a round"
    plan, verdict = judged
    if spec.check_savings:
        verdict = _check_savings(root, plan, verdict, hands)
    made = write_verdict(root, verdict)
    send_verdict(root, made, verdict, spec.training.wandb)
    return Judged(plan, verdict, made)


def _check_savings(root: Root, plan: ComparisonPlan, verdict: Verdict, hands: Hands) -> Verdict:
    """Train the better arms' runs that stop at the tokens they saved; the verdict with what those say."""
    for number, pair in enumerate(verdict.comparisons):
        shorter = plan.shortened(pair)
        if looks.over_budget(root, replace(plan, runs=(*plan.runs, *shorter.runs)), first=False):
            hands.say(f"max_dollars leaves no room for the runs that would check the savings of {pair.better}")
        elif shorter.runs:
            _train(root, shorter, hands)
            runs = [run.id for run in shorter.runs]
            verdict = shortened.check_savings(root, verdict, verdict.comparisons[number], runs, plan.spec.score)
        else:
            hands.say(f"{pair.a} and {pair.b}: no arm saves tokens that runs could check")
    return verdict


def plan_of(root: Root, spec: ComparisonSpec, hands: Hands) -> ComparisonPlan:
    """Check that arms are matched, prepare those that are missing, and give each run its budget."""
    engine.check(spec.training, spec.arms)
    handle = hands.steps.run(f"List {spec.pool.address}", lambda _: open_pool(root, spec.pool))
    pool_id = handle.pool_id
    require_columns_there(root, handle, spec.strata, spec.score)
    missing = {arm_id(arm, spec.pool, pool_id): arm for arm in spec.missing_arms(root, pool_id)}
    for drawn in (each for arm in spec.arms for each in spec.draws_of(arm)):
        require_same_list(root, drawn, arm_id(drawn, spec.pool, pool_id))
    if missing:
        engine.get_ready(root, spec.training, len(spec.arms) * len(spec.seeds))
    hands.prepare(spec, missing)
    if (score := spec.score) is not None:
        hands.steps.run(
            f"Strata of {spec.pool.name}",
            lambda progress: build_strata(root, spec.pool, score, progress=progress),
        )
    for column in spec.strata:
        hands.steps.run(
            f"Strata of {spec.pool.name} by {column}",
            lambda progress, column=column: build_division(root, spec.pool, column, progress=progress),  # type: ignore[misc]
        )
    divide(root, pool_id, spec.strata)  # what makes no parts is said before anything is trained
    plan = ComparisonPlan.make(root, spec, pool_id)
    for run in plan.runs:
        trained = run.experiment
        engine.check(trained.training, [trained.arm], root.manifest(spec.packed(trained.arm, pool_id)).facts)
    encode_asked(root, plan, hands)  # what is wrong with it is said before anything is trained
    return plan


def encode_asked(root: Root, plan: ComparisonPlan, hands: Hands) -> tuple[list[str], list[str]]:
    """Encode the texts and the questions that runs are scored on; the last parts of the artifacts' names, of both.

    Raises InputError where no verdict can be made of them.
    """
    spec = plan.spec
    texts, questions = encode_beside(root, plan.pool_id, spec.texts, spec.questions, hands.steps)
    for one, made in zip(spec.texts, texts, strict=True):
        require_enough(made.facts["documents"], f"texts {one.name}")
    for each, made in zip(spec.questions, questions, strict=True):
        require_fit(made, spec.training.sequence_length)
        require_enough(made.facts["questions"], f"questions {each.name}")
    return [made.path.name for made in texts], [made.path.name for made in questions]


def _train(root: Root, plan: ComparisonPlan, hands: Hands) -> None:
    """Show what the missing runs cost, then train them, and show how far they are."""
    missing = plan.missing(root)
    complete = len(plan.runs) - len(missing)
    hands.say(f"{complete} of {len(plan.runs)} runs are complete, {len(missing)} to train")
    if not missing:
        return
    plan.require_alike(root)
    costs, shows = plan.cost(root, missing)
    few = what_steps_are_few(costs[-1].tokens, costs[-1].steps, plan.spec.training.sequence_length)
    hands.show_cost(plan, costs, [*few, shows, *plan.texts(root)])
    runs = RunsTable(root, {run.id: run.experiment for run in plan.runs})
    replicate = {id: number for ids in plan.runs_by_arm.values() for number, id in enumerate(ids)}
    # one of each arm, then the next: all arms are seen early
    in_turn = sorted(missing, key=lambda run: replicate[run.id])
    engine.get_ready(root, plan.spec.training, len(missing))
    with hands.following(plan, lambda: Standing(runs.rows(), looks.so_far(root, plan))):
        hands.train([(plan, run) for run in in_turn])


def _judge(root: Root, plan: ComparisonPlan, hands: Hands) -> Verdict:
    """Score what is missing, and judge all runs at the level of this look."""
    spec = plan.spec
    texts, questions = encode_asked(root, plan, hands)
    hands.score(plan, plan.unscored(root, texts, questions), texts, questions)
    for id in dict.fromkeys(run.arm_id for run in plan.runs):
        if not all(root.find(ArmFolder(id).near(what)) for what in (HOLDOUT, *texts, *map(of_questions, questions))):
            search_arm(root, id, spec.texts, hands.steps, spec.questions)
    return judge(
        root,
        spec.name,
        plan.runs_by_arm,
        target=spec.target,
        pairing=spec.pairing,
        allow=spec.allowed,
        outside=texts,
        questions=questions,
        core=spec.core,
        control=spec.control,
        strata_by=spec.score,
        strata_columns=spec.strata,
        level=looks.level_of_look(root, plan) or looks.LEVEL,
    )
