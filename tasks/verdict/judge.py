"""From finished runs on disk to a verdict: {arm: its runs, one a seed} in, one typed record out."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from typing import get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from tasks.errors import InputError
from tasks.records.layout import RunFolder
from tasks.records.near import HOLDOUT, of_questions
from tasks.records.verdict import OUTSIDE, QUESTIONS, Control, HoldoutSize, Matched, Pairing, Verdict
from tasks.spec import Name, Score, spelled_out
from tasks.store.artifact import Artifact, Manifest, code_version
from tasks.store.root import Root
from tasks.verdict import answers, matched
from tasks.verdict.asked import sum_answers
from tasks.verdict.case import Case, arm_scores, run_of
from tasks.verdict.compared import comparison
from tasks.verdict.divided import divide
from tasks.verdict.leaks import read_leaks
from tasks.verdict.strata import find_strata, score_used, sum_scores
from tasks.verdict.taken import chances, drawn_of_ties
from tasks.verdict.target import HALVES, find_target
from tasks.verdict.wording import worded


def judge(
    root: Root,
    name: str,
    arms: Mapping[str, Sequence[str]],
    *,
    allow: Sequence[str] = (),
    outside: Sequence[str] = (),
    questions: Sequence[str] = (),
    core: bool = False,
    target: str = "all",
    pairing: Pairing = "auto",
    control: Control | None = None,
    strata_by: Score | None = None,
    strata_columns: Sequence[str] = (),
    level: float = 0.95,
) -> Verdict:
    """Compare every pair of arms. `arms`: {label: ids of its finished runs, one a seed}.

    `target`: which documents decide. The holdout is a sample of the whole pool, so an arm that leaves out the pool's worst documents
    is tested on them too; "upper half" asks about the better-rated half alone, where in turn an arm of such documents is at home;
    "outside/NAME" takes one of the texts from elsewhere, "questions/NAME" the right answers to questions. `pairing`: whether runs
    are paired by seed (see `paired_by_seed`); choose it before the first look. `allow`: intended differences besides selection,
    by path ("arm.order"). `outside`: texts from elsewhere that every run was scored on, by the names of
    `runs/<run>/outside/<name>`; `questions`: likewise those that every run was asked. `core`: compare `runs/<run>/core` too.
    `control`: "aa" if arms are meant to be equal. `strata_by`: the score of the holdout's halves and deciles, if not that of the
    arms; it must be in `pools/<pool>/strata`. `strata_columns`: columns that the holdout is divided by too, from
    `pools/<pool>/divisions`.

    With more than one pair, the intervals of the target and their p-values are Bonferroni-adjusted so that all of them hold together
    with probability `level`; so are the bands of all strata of all pairs. The other intervals of strata explore.

    Raises InputError when the name cannot be a folder's, arms are not matched, an arm has one seed twice, seeds that are to be
    paired differ between arms, a run is not finished, or the inputs of a run or of its scores have changed since.
    """
    _require_name(name)
    target = find_target(target, outside, questions)
    if pairing not in (known := get_args(Pairing)):
        raise InputError(f"The pairing {pairing!r} is unknown: take one of {', '.join(known)}.")
    if control not in (None, *get_args(Control)):
        raise InputError(f"The control {control!r} is unknown: take {' or '.join(get_args(Control))}, or leave it out.")
    matched.require_pairing(pairing, control)
    results = {
        label: sorted(runs, key=lambda run: run.manifest.spec["seed"])
        for label, runs in _open(root, arms, lambda run: run.result).items()
    }
    arms = {label: [run_of(run) for run in runs] for label, runs in results.items()}
    allowed = _require_comparable(root, results, allow, control)
    divided_by, strata = find_strata(root, results, spelled_out(strata_by) if strata_by else None)
    held_out = [HOLDOUT, *outside, *map(of_questions, questions)]
    leaks = {what: found for what in held_out if (found := read_leaks(root, results, what))}
    leaked = {what: leaks[what].documents if what in leaks else None for what in held_out}
    first = next(iter(results.values()))[0].manifest
    documents, holdout = sum_scores(
        results,
        strata=strata,
        leaked=leaked[HOLDOUT],
        taken=chances(root, results),
        divided=divide(root, first.inputs["pool"], strata_columns),
    )
    if target in HALVES:
        matched.require_two_scores(set(documents.score[np.isfinite(documents.score)].tolist()), target)
        documents.require_half(target)
    beside = {
        OUTSIDE + name: sum_scores(
            _open(root, arms, partial(RunFolder.outside, texts=name)), f"texts {name}", leaked=leaked[name]
        )
        for name in outside
    }
    answered = {
        QUESTIONS + name: sum_answers(
            _open(root, arms, partial(RunFolder.questions, asked=name)), name, leaked[of_questions(name)]
        )
        for name in questions
    }
    case = Case(
        results=results,
        documents=documents,
        holdout=holdout,
        beside=beside | {name: scored for name, (scored, _) in answered.items()},
        accuracies={name: accuracies for name, (_, accuracies) in answered.items()},
        answers=answers.read(_open(root, arms, lambda run: run.core)) if core else None,
        target=target,
        pairing=pairing,
        level=level,
        divided_by=divided_by,
        leaks=leaks,
    )
    from_outside = bool(first.spec.get("pool", {}).get("holdout"))
    ties = {label: drawn_of_ties(root, runs[0].manifest) for label, runs in results.items()}
    scored = {label: arm_scores(label, case).model_copy(update={"drawn_of_ties": part}) for label, part in ties.items()}
    return Verdict(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code=code_version(),
        level=level,
        level_of_a_pair=case.level_of_a_pair,
        target=target,
        pairing=pairing,
        outside=tuple(outside),
        questions=tuple(questions),
        core=core,
        control=control,
        strata_by=score_used(root, first.inputs["pool"], divided_by),
        strata_columns=tuple(strata_columns),
        pool=first.inputs["pool"],
        tokens=first.facts.get("tokens"),
        holdout=HoldoutSize(
            documents=len(documents.document),
            bytes=int(documents.bytes.sum()),
            clusters=documents.clusters,
            clusters_are="blocks of neighbouring rows" if documents.blocks else "single documents",
            from_outside=from_outside,
        ),
        matched=Matched(allowed=allowed, unknown=matched.unknown_of_runs(root, _manifests(results))),
        arms=tuple(scored.values()),
        comparisons=tuple(
            worded(comparison(a, b, case), scored[a], scored[b], control, from_outside=from_outside)
            for a, b in combinations(arms, 2)
        ),
        near=tuple(arm for each in leaks.values() for arm in each.arms),
    )


def _require_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise InputError(
            f"The verdict's name is {name!r}: use lower-case letters, digits, - and _, at most 41 characters."
        ) from error


def _open(
    root: Root, arms: Mapping[str, Sequence[str]], scores: Callable[[RunFolder], str]
) -> dict[str, list[Artifact]]:
    if len(arms) < 2:
        raise InputError(f"A verdict needs at least 2 arms, but {len(arms)} was given: name the runs of another arm.")
    if empty := [label for label, runs in arms.items() if not runs]:
        raise InputError(f"The arm {empty[0]} has no runs: train it first, or leave it out.")
    found = {label: [root.open(scores(RunFolder(run))) for run in runs] for label, runs in arms.items()}
    root.require_current(_manifests(found))
    return found


def _manifests(results: Mapping[str, Sequence[Artifact]]) -> list[Manifest]:
    return [run.manifest for runs in results.values() for run in runs]


def _require_comparable(
    root: Root,
    results: Mapping[str, Sequence[Artifact]],
    allow: Sequence[str],
    control: Control | None,
) -> dict[str, str]:
    """Seeds differ within an arm, nothing else does; between arms the selection does. Returns the allowed differences."""
    for label, runs in results.items():
        seeds = [run.manifest.spec.get("seed") for run in runs]
        if twice := [seed for seed in set(seeds) if seeds.count(seed) > 1]:
            raise InputError(f"The arm {label} has two runs with seed {twice[0]}: give each seed one run.")
    matched.require_other_trainings({label: [run.manifest for run in runs] for label, runs in results.items()}, control)
    manifests = _manifests(results)
    fronts = [label for label, runs in results.items() if any(matched.reads_front(run.manifest) for run in runs)]
    found = matched.require_matched(matched.differences_of_runs(root, manifests), allow)
    return found | matched.require_fair_budgets(fronts, allow)
