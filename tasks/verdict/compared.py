"""One pair of arms: its differences with their intervals, what seeds do to them, what more seeds would show, and the tokens saved."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy.special import stdtrit

from tasks.records.layout import METRICS
from tasks.records.metrics import read_metrics
from tasks.records.verdict import (
    OUTSIDE,
    QUESTIONS,
    AccuracyDifference,
    CleanDifference,
    Comparison,
    Detectable,
    Difference,
    QuestionsDifference,
    SeedPairing,
    StandardErrors,
    StratumDifference,
    TaskDifference,
    TextsDifference,
    TokensSaved,
    Weakness,
)
from tasks.verdict import answers, draws
from tasks.verdict.asked import ACCURACIES, Accuracies
from tasks.verdict.case import Case, known
from tasks.verdict.paired import LN2, Differences, detectable_difference, paired_differences
from tasks.verdict.replicates import correlation, paired_by_seed
from tasks.verdict.savings import UNKNOWN, curve_of, shortened, tokens_saved
from tasks.verdict.strata import StratumSums
from tasks.verdict.target import TARGETS
from tasks.verdict.wording import on

PLANNED = 3  # further numbers of seeds, each twice the last, of which the power is said
MOST_SEEDS = 64
ENOUGH_CLUSTERS = 20  # below, the interval of documents with long tails misses a little more often than it says
ENOUGH_EFFECTIVE = 0.1
"""Effective documents for each that there is. Of log-normal lengths a spread of 1.5 gives 0.11 and covers 0.96, one of 2 gives 0.03 and covers 0.92; a Pareto
tail of 1.5 gives 0.06 and covers 0.68, where differences grow with length."""
Row = TypeVar("Row", bound=Difference)


def comparison(a: str, b: str, case: Case) -> Comparison:
    """The difference between two arms, without its sentence."""
    holdout, decides = case.holdout.about(a, b), case.decides
    paired = case.paired(a, b)
    # the same whatever columns were asked for
    explored = together = _paired(a, b, case, holdout.always_there(), case.level, paired)
    if len(explored.estimate) < len(holdout.strata):
        together = _paired(a, b, case, holdout, case.level, paired)
    beside = {target: _paired(a, b, case, sums, case.level, paired) for target, (_, sums) in case.beside.items()}
    deciding = explored if case.target in TARGETS else beside[case.target]
    overall = deciding.at(case.level_of_a_pair).adjusted(case.pairs)
    bands = together.together(case.level_of_a_pair)
    seeds = min(case.count(label) for label in (a, b))
    difference = float(overall.estimate[decides])
    detectable, needed = _power(abs(difference), overall, seeds, case)
    pairing = _pairing(a, b, case, paired)
    return _row(
        Comparison,
        overall,
        decides,
        a=a,
        b=b,
        level=case.level_of_a_pair,
        seeds=seeds,
        covers_seeds=overall.covers_seeds,
        target=case.target,
        on=on(case.target),
        errors=_errors(overall, decides, case.level_of_a_pair),
        degrees_of_freedom=known(overall.degrees_of_freedom[decides]),
        pairing=pairing,
        warnings=_weaknesses(seeds, int(overall.clusters[decides]), case, pairing),
        detectable=detectable,
        seeds_needed=needed,
        tokens_saved=_savings(a, b, overall, paired, case),
        strata=[
            _row(
                StratumDifference,
                explored if i < len(explored.estimate) else together,
                i,
                kind=s.kind,
                label=s.label,
                column=s.column,
                documents=s.documents,
                bytes=s.bytes,
                band_low=known(bands.low[i]),
                band_high=known(bands.high[i]),
            )
            for i, s in enumerate(holdout.strata)
            if s.bytes
        ],
        clean=_clean(a, b, case, paired),
        outside=[
            _row(TextsDifference, found, 0, label=target.removeprefix(OUTSIDE))
            for target, found in beside.items()
            if target.startswith(OUTSIDE)
        ],
        questions=[
            _row(
                QuestionsDifference,
                found,
                0,
                label=target.removeprefix(QUESTIONS),
                questions=len(case.beside[target][0].document),
                **_accuracies(a, b, case, case.accuracies[target], paired),
            )
            for target, found in beside.items()
            if target.startswith(QUESTIONS)
        ],
        tasks=_answers(a, b, case, case.answers, paired) if case.answers else [],
    )


def _paired(a: str, b: str, case: Case, sums: StratumSums, level: float, paired: bool) -> Differences:
    ours, theirs = (case.replicates(label, sums.nats[label]) for label in (a, b))
    return paired_differences(ours, theirs, sums.sizes, paired=paired, level=level)


def _clean(a: str, b: str, case: Case, paired: bool) -> CleanDifference | None:
    """The difference on the target without the documents that have near copies, with an interval of the level of the one that decides."""
    _, sums = case.deciding
    if sums.clean is None:
        return None
    i, whole, left = case.decides, sums.strata[case.decides], sums.clean.strata[case.decides]
    found = _paired(a, b, case, sums.clean, case.level_of_a_pair, paired).adjusted(case.pairs)
    return _row(
        CleanDifference,
        found,
        i,
        documents=left.documents,
        bytes=left.bytes,
        left_out=whole.documents - left.documents,
        leaked={label: count for label, count in case.leaked.items() if label in (a, b)},
    )


def _accuracies(a: str, b: str, case: Case, found: Accuracies, paired: bool) -> dict[str, object]:
    """The fields of `QuestionsDifference` on questions with choices: an accuracy is per question what bits are per byte."""
    rows: dict[str, object] = {"choices": int(found.sizes[0].sum()), "accuracy": None, "accuracy_normed": None}
    if not found.sizes.any():
        return rows
    sums = {label: case.replicates(label, found.right[label]) for label in (a, b)}
    differences = paired_differences(LN2 * sums[a], LN2 * sums[b], found.sizes, paired=paired, level=case.level)
    # where few questions tell the arms apart, resamples that hold none of them make it endless
    differences = replace(differences, low=np.maximum(differences.low, -1), high=np.minimum(differences.high, 1))
    for i, name in enumerate(ACCURACIES):
        shares = {label: float(sums[label].mean(0)[i].sum() / found.sizes[i].sum()) for label in (a, b)}
        rows[name] = AccuracyDifference.model_validate({**_chance(differences, i), "a": shares[a], "b": shares[b]})
    return rows


def _errors(overall: Differences, i: int, level: float) -> StandardErrors:
    documents, seeds = float(overall.error_documents[i]), float(overall.spread.error[i])
    with np.errstate(invalid="ignore"):
        return StandardErrors(
            documents=known(documents),
            seeds=known(seeds),
            reach_documents=known(documents * stdtrit(overall.clusters[i] - 1, (1 + level) / 2)),
            reach_seeds=known(seeds * stdtrit(overall.degrees_of_freedom[i], (1 + level) / 2)),
        )


def _answers(a: str, b: str, case: Case, read: answers.Answers, paired: bool) -> list[TaskDifference]:
    names, values = read
    replicates = {label: case.replicates(label, values[label]) for label in (a, b)}
    return answers.compare(a, b, (names, replicates), case.level, paired=paired)


def _pairing(a: str, b: str, case: Case, paired: bool) -> SeedPairing:
    """What the seeds of both arms have in common, on the target, and the interval that does not decide."""
    seeds = {label: case.seeds(label) for label in (a, b)}
    shared = sorted(set(seeds[a]) & set(seeds[b]))
    found = dict.fromkeys(("correlation", "low", "high"))
    if len(shared) >= 3:
        measured = correlation(*(case.scores(label)[np.isin(seeds[label], shared)] for label in (a, b)))
        found = {"correlation": known(measured.estimate), "low": known(measured.low), "high": known(measured.high)}
    other = None
    nested = any(draws.nested(case.draws(label)) for label in (a, b))
    if len(shared) >= 2 and seeds[a] == seeds[b] and not nested:
        differences = _paired(a, b, case, case.deciding[1], case.level_of_a_pair, not paired).adjusted(case.pairs)
        other = Difference.model_validate(_chance(differences, case.decides))
    return SeedPairing(asked=case.pairing, paired=paired, shared=len(shared), other=other, **found)


def _weaknesses(seeds: int, clusters: int, case: Case, pairing: SeedPairing) -> list[Weakness]:
    documents, _ = case.deciding
    sizes = documents.bytes[documents.inside(case.target)].astype(float)
    # the number of equally long documents that would weigh as much (Kish, 1965)
    effective = sizes.sum() ** 2 / max((sizes**2).sum(), 1.0)
    found: dict[Weakness, bool] = {
        "two seeds": seeds == 2 and not pairing.paired,
        "opposed seeds": not pairing.paired and pairing.high is not None and pairing.high < 0,
        "few clusters": clusters < ENOUGH_CLUSTERS,
        "single documents": not documents.blocks,
        "long documents": effective < ENOUGH_EFFECTIVE * len(sizes),
    }
    return [weakness for weakness, there in found.items() if there]


def _row(record: type[Row], found: Differences, i: int, /, **fields: object) -> Row:
    """Stratum `i` of the differences as a record with these other fields."""
    return record.model_validate({**_chance(found, i), "clusters": int(found.clusters[i]), **fields})


def _chance(found: Differences, i: int) -> dict[str, float | None]:
    """The fields of a `Difference`."""
    values = {"difference": found.estimate[i], "low": found.low[i], "high": found.high[i], "p": found.p[i]}
    return {name: known(value) for name, value in values.items()}


def _power(
    difference: float, overall: Differences, seeds: int, case: Case
) -> tuple[list[Detectable], Detectable | None]:
    """What this many seeds could have shown and what more would; and how many would show a difference as large as this one."""
    if not overall.covers_seeds:
        return [], None
    variances = overall.spread.variances[:, case.decides]
    error_documents = known(overall.error_documents[case.decides]) or 0.0
    clusters = int(overall.clusters[case.decides])

    def smallest(planned: int) -> float:
        paired = paired_by_seed(case.pairing, range(planned), range(planned))
        parts = [float(variances.sum())] if paired else variances.tolist()
        return detectable_difference(error_documents, parts, planned, case.level_of_a_pair, clusters=clusters)

    planned = [seeds * 2**i for i in range(PLANNED + 1)]
    needed = next((n for n in range(seeds + 1, MOST_SEEDS + 1) if smallest(n) <= difference), None)
    detectable = [Detectable(seeds=n, difference=smallest(n)) for n in planned if n > 1]
    return detectable, Detectable(seeds=needed, difference=difference) if needed else None


def _savings(a: str, b: str, overall: Differences, paired: bool, case: Case) -> TokensSaved:
    """The difference as a share of trained tokens, by the better arm's curves on the target.

    Runs are scored on texts from elsewhere at their end alone, so there are no curves on those; nor on a half of the holdout by
    another score than the arm's own, which its curves are by.
    """
    if case.target not in TARGETS:
        return UNKNOWN
    better, worse = (a, b) if overall.estimate[case.decides] < 0 else (b, a)
    if case.target != "all" and case.results[better][0].manifest.spec.get("arm", {}).get("score") != case.divided_by:
        return UNKNOWN
    sizes = np.array([s.bytes for s in case.holdout.strata if s.kind == "decile"])
    deciles = TARGETS[case.target]
    lines = [read_metrics(run.path / METRICS) for run in case.results[better]]
    saved = tokens_saved(
        [curve_of(run) if case.target == "all" else curve_of(run, sizes, deciles) for run in lines],
        case.scores(better),
        case.scores(worse),
        paired=paired,
        level=case.level_of_a_pair,
        documents=known(overall.error_documents[case.decides]) or 0.0,
        clusters=int(overall.clusters[case.decides]),
    )
    facts = case.results[better][0].facts
    if not saved.estimate or not (facts.get("tokens") and facts.get("batch_tokens")):
        return saved
    budget = shortened(saved.estimate, facts["tokens"], facts["batch_tokens"])
    return saved.model_copy(update={"budget": budget}) if budget < facts["tokens"] else saved
