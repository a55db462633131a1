"""Matched arms, each trained in several replicates, and the verdict on them: which is better, by how much, how sure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from flows.children import cancel_children, preparation, run_children, scoring, training
from flows.deployed import as_deployed
from tasks.corpus.arm.listed import require_same_list
from tasks.corpus.steps import find_pool, strata
from tasks.engines import entry as engine
from tasks.errors import InputError
from tasks.records.layout import REPORT, arm_id
from tasks.records.stopping import MOST_REPLICATES, StoppingRule
from tasks.records.verdict import Control, Pairing, Target, Verdict
from tasks.reports.report import write_verdict
from tasks.reports.steps import show_estimate, show_loss_curve, show_scores, show_verdict
from tasks.reports.wandb_verdict import send_verdict
from tasks.spec import Arm, Draw, Line, Name, Pool, Score, Seed, Texts, Training, Url, with_common_population
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.tokens.steps import outside
from tasks.verdict import looks, shortened
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec
from tasks.verdict.judge import judge
from tasks.verdict.planning import Budget

# The run form shows plain default values, not ones that a function makes.
ARMS = [Arm(order="shuffled"), Arm(name="rand16", select="random", order="shuffled")]
REDRAW: list[Draw] = ["init", "order", "sample"]
REPLICATES = 4
ALLOW: list[str] = []
TEXTS: list[Texts] = []
Arms = Annotated[list[Arm], Field(min_length=2, max_length=64)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_REPLICATES)]
Replicates = Annotated[int, Field(ge=1, le=MOST_REPLICATES)]


@flow(name="compare", flow_run_name="{name}", on_cancellation=[cancel_children])
@as_deployed
def compare(
    arms: Arms = ARMS,
    seeds: Seeds | None = None,
    data: Pool = Pool(),
    train: Training = Training(recipe="quiet"),
    root: Url = DEFAULT_ROOT,
    name: Name = "top16-vs-rand16",
    target: Target = "all",
    pairing: Pairing = "auto",
    budget: Budget = "tokens",
    allow: Annotated[list[Line], Field(max_length=64)] = ALLOW,
    texts: Annotated[list[Texts], Field(max_length=64)] = TEXTS,
    core: bool = False,
    control: Control | None = None,
    strata_by: Score | None = None,
    replicates: Replicates | None = None,
    redraw: Annotated[list[Draw], Field(max_length=3)] = REDRAW,
    stop: StoppingRule | None = None,
    check_savings: bool = False,
) -> dict[str, Any]:
    """Train replicates of every arm on the same budget, and judge which is better with an error bar.

    How the question is to be answered is written to `registered.json` in the verdict's folder before the first run, and shown
    beside the result with every later change and every look.

    Arms that differ in more than their selection are refused before anything is spent. What is complete under the root is
    reused. All arms draw from the documents that have every rating which one of them uses.

    Args:
        arms: Two or more selections of the pool. Their order must be the same, unless allow names arm.order.
        seeds: Instead of replicates: seeds of runs that all train on one draw of each arm. They redraw initial weights, the rows of
            a budget and the order of a shuffled arm.
        data: The pool that all arms draw from, with the holdout that all are scored on.
        train: How every arm is trained, by the quiet recipe unless another is given. Its tokens are the common budget; empty: as many as the smaller arm's packed rows hold. A
            larger arm trains on a random part of its rows.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        name: Name of the verdict.
        target: Which documents decide: all of the holdout, as they come in the pool, one half of them by score, or outside/NAME, one of texts.
        pairing: Whether runs of two arms are paired by seed: auto (from 3 seeds on), seed (always) or none.
        budget: What is equal between arms: tokens (those of the smaller arm), or bytes of text.
        allow: Differences besides selection that are meant, by their path, such as arm.order.
        texts: Folders of texts that no arm has trained on, to score every run on besides the holdout.
        core: Compare nanochat's CORE tasks too. Needs nanochat and its evaluation bundle on the hosts of the gpu pool.
        control: aa if arms are equal on purpose, to see how far equal arms seem to differ; each arm then gets seeds of its own.
        strata_by: The score that the holdout's halves and deciles are by: columns and their weights, or an expression. Empty: the pool's score.
        replicates: Runs of each arm, each redrawn as redraw says. Two are the fewest that make a verdict, three or more a good one.
            With neither replicates, seeds nor stop: 4.
        redraw: What a replicate draws anew: init (initial weights), order (of a shuffled arm), sample (documents of a random or
            temperature arm, rows of a budget). What is not named is the same in all runs.
        stop: Instead of replicates: add them in rounds, look after each round, and stop when the answer is clear.
        check_savings: If an arm is better, train its replicates again on as many fewer tokens as its curves say that it saved, and say
            whether they still reach the other arm. Only for all or a half of the holdout as target.
    """
    spec = ComparisonSpec(
        name=name,
        pool=data,
        arms=with_common_population(data, arms),
        seeds=_seeds(seeds, replicates, stop, redraw),
        training=train,
        budget=budget,
        target=target,
        pairing=pairing,
        allow=allow,
        texts=texts,
        core=core,
        control=control,
        strata_by=strata_by,
        redraw=None if seeds else redraw,
        stop=stop,
        check_savings=check_savings,
    )
    return run_comparison(spec, root)


def run_comparison(spec: ComparisonSpec, root: str) -> dict[str, Any]:
    """Let children make what is missing of a comparison, judge it and show the verdict. Called in a flow."""
    store = Root(root)
    plan, verdict = _in_rounds(store, spec, root)
    if spec.check_savings:
        verdict = _check_savings(store, plan, verdict, root)
    return _show(store, plan, verdict)


def _seeds(
    seeds: list[int] | None, replicates: int | None, stop: StoppingRule | None, redraw: Sequence[Draw]
) -> Sequence[int]:
    """The seeds of an arm's runs; replicates are numbered from 1. Raises InputError when more than one thing says them."""
    given = {"seeds": seeds, "replicates": replicates, "stop": stop}
    if len(named := [name for name, value in given.items() if value is not None]) > 1:
        raise InputError(
            f"{' and '.join(named)} all say how many runs an arm gets: give one of them, and leave the others out (null)."
        )
    if seeds and list(redraw) != REDRAW:
        raise InputError(
            "seeds and redraw are both given, but seeds redraw all but an arm's documents: give replicates with redraw."
        )
    return seeds or range(1, 1 + (stop.first_look if stop else replicates or REPLICATES))


def _in_rounds(store: Root, spec: ComparisonSpec, root: str) -> tuple[ComparisonPlan, Verdict]:
    """Train and judge, in one round or by the stopping rule until the answer is clear. What is complete is found again."""
    spec.require_matched()
    judged: tuple[ComparisonPlan, Verdict] | None = None
    for each in looks.rounds(spec):
        plan = _plan(store, each, root)
        if looks.over_budget(store, plan, first=judged is None) and judged:
            return judged[0], looks.take(store, *judged, last=True)
        looks.register(store, plan)
        _train(store, plan, root)
        judged = plan, looks.take(store, plan, _judge(store, plan, root))
        if looks.is_decided(judged[1]):
            break
        if spec.stop:
            get_run_logger().info("Look at %d replicates an arm: going on. %s", plan.replicates, judged[1].sentences[0])
    assert judged, "a comparison has a round"
    return judged


def _check_savings(store: Root, plan: ComparisonPlan, verdict: Verdict, root: str) -> Verdict:
    """Let children train the better arms' runs that stop at the tokens they saved; the verdict with what those say."""
    for number, pair in enumerate(verdict.comparisons):
        shorter = plan.shortened(pair)
        if looks.over_budget(store, replace(plan, runs=(*plan.runs, *shorter.runs)), first=False):
            get_run_logger().warning(
                "max_dollars leaves no room for the runs that would check the savings of %s", pair.better
            )
        elif shorter.runs:
            _train(store, shorter, root)
            runs = [run.id for run in shorter.runs]
            verdict = shortened.check_savings(store, verdict, verdict.comparisons[number], runs, plan.spec.score)
        else:
            get_run_logger().info("%s and %s: no arm saves tokens that runs could check", pair.a, pair.b)
    return verdict


def _judge(store: Root, plan: ComparisonPlan, root: str) -> Verdict:
    """Let children score what is missing, and judge all runs at the level of this look."""
    spec = plan.spec
    return judge(
        store,
        spec.name,
        plan.runs_by_arm,
        target=spec.target,
        pairing=spec.pairing,
        allow=spec.allowed,
        outside=_score(store, plan, root),
        core=spec.core,
        control=spec.control,
        strata_by=spec.score,
        level=looks.level_of_look(store, plan) or looks.LEVEL,
    )


def _plan(store: Root, spec: ComparisonSpec, root: str) -> ComparisonPlan:
    """Check that arms are matched, let children prepare those that are missing, and give each run its budget."""
    engine.check(spec.training, spec.arms)
    pool_id = find_pool(store, spec.pool)
    children = [
        preparation(arm_id(arm, spec.pool, pool_id), arm, spec.pool, spec.training, root)
        for arm in spec.missing_arms(store, pool_id)
    ]
    for drawn in (each for arm in spec.arms for each in spec.draws_of(arm)):
        require_same_list(store, drawn, arm_id(drawn, spec.pool, pool_id))
    run_children(children[:1])  # makes index, holdout and tokenizer, which the others find
    run_children(children[1:])
    if spec.score:
        strata(store, spec.pool, spec.score)
    plan = ComparisonPlan.make(store, spec, pool_id)
    for run in plan.runs:
        trained = run.experiment
        engine.check(trained.training, [trained.arm], store.manifest(spec.packed(trained.arm, pool_id)).facts)
    return plan


def _train(store: Root, plan: ComparisonPlan, root: str) -> None:
    """Show what the missing runs cost, then let children train them."""
    missing = plan.missing(store)
    complete = len(plan.runs) - len(missing)
    get_run_logger().info("%d of %d runs are complete, %d to train", complete, len(plan.runs), len(missing))
    if missing:
        plan.require_alike(store)
        costs, shows = plan.cost(store, missing)
        show_estimate(plan.spec.name, costs, [shows, *plan.texts(store)])
    run_children(
        [
            training(
                run.id,
                run.arm_id,
                run.experiment.training,
                run.experiment.seed,
                root,
                run.experiment.held,
                plan.spec.alike,
            )
            for run in missing
        ]
    )


def _score(store: Root, plan: ComparisonPlan, root: str) -> list[str]:
    """Let children score what is missing of the texts and of CORE. Returns the names of the texts as encoded."""
    spec = plan.spec
    names = [outside(store, plan.pool_id, texts) for texts in spec.texts]
    run_children([scoring(run.id, spec.texts, spec.core, root) for run in plan.unscored(store, names)])
    return names


def _show(store: Root, plan: ComparisonPlan, verdict: Verdict) -> dict[str, Any]:
    """Write the verdict and its report, and show it with the loss curves and scores of its runs."""
    name, runs = plan.spec.name, plan.runs
    made = write_verdict(store, verdict)
    send_verdict(store, made, verdict, plan.spec.training.wandb)
    show_loss_curve(store, [run.id for run in runs], [run.experiment.arm.name for run in runs], name)
    show_scores(store, name, {run.id: run.experiment for run in runs})
    show_verdict(store, made, verdict)
    for sentence in verdict.sentences:
        get_run_logger().info(sentence)
    return {"verdict": made.name, "sentences": verdict.sentences, "report": str(made.path / REPORT)}
