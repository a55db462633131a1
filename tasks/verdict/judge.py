"""From finished runs on disk to a verdict: {arm: its runs, one a seed} in, one typed record out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from typing import TypeVar, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.special import stdtrit

from tasks.errors import InputError
from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.records.verdict import (
    OUTSIDE,
    ArmScores,
    Comparison,
    Control,
    Detectable,
    Difference,
    HoldoutSize,
    Matched,
    Pairing,
    SeedPairing,
    StandardErrors,
    StratumDifference,
    StratumScore,
    Target,
    TaskDifference,
    TextsDifference,
    TokensSaved,
    Verdict,
    Weakness,
)
from tasks.spec import Arm, Name, Score, spelled_out
from tasks.store.artifact import Artifact, Manifest, code_version
from tasks.store.root import Root
from tasks.verdict import answers, draws, matched
from tasks.verdict.paired import (
    Differences,
    bits_per_byte,
    detectable_difference,
    level_of_a_pair,
    paired_differences,
)
from tasks.verdict.replicates import correlation, paired_by_seed
from tasks.verdict.savings import UNKNOWN, curve_of, shortened, tokens_saved
from tasks.verdict.strata import ScoredDocuments, StratumSums, find_strata, score_used, sum_scores
from tasks.verdict.target import HALVES, TARGETS, find_target
from tasks.verdict.wording import on, worded

PLANNED = 3  # further numbers of seeds, each twice the last, of which the power is said
MOST_SEEDS = 64
ENOUGH_CLUSTERS = 20  # below, the interval of documents with long tails misses a little more often than it says
TEXT_READ = ("trained_documents", "text_share", "mean_score", "arm_mean_score", "epochs")
"""Facts of a run that its arm's scores repeat."""
Row = TypeVar("Row", bound=Difference)


@dataclass(frozen=True)
class Case:
    """All that comparisons are computed from."""

    results: Mapping[str, Sequence[Artifact]]
    documents: ScoredDocuments
    holdout: StratumSums
    texts: Mapping[str, tuple[ScoredDocuments, StratumSums]]
    answers: answers.Answers | None
    target: Target
    pairing: Pairing
    level: float
    divided_by: Score | None
    """The score of the strata, if there is one."""

    @property
    def deciding(self) -> tuple[ScoredDocuments, StratumSums]:
        """The documents of the target: the holdout, or texts from elsewhere."""
        return (
            (self.documents, self.holdout) if self.target in TARGETS else self.texts[self.target.removeprefix(OUTSIDE)]
        )

    @property
    def decides(self) -> int:
        """The stratum of the target among the deciding documents."""
        return list(TARGETS).index(self.target) if self.target in TARGETS else 0

    def scores(self, label: str) -> np.ndarray:
        """Bits per byte of an arm's runs on the target, (seeds,)."""
        sums = self.deciding[1]
        values: np.ndarray = bits_per_byte(sums.nats[label], sums.sizes)[:, self.decides]
        return values

    @property
    def pairs(self) -> int:
        """Of arms."""
        return len(list(combinations(self.results, 2)))

    @property
    def level_of_a_pair(self) -> float:
        """Level of the intervals that are adjusted for the number of pairs."""
        return level_of_a_pair(self.level, len(self.results))

    def seeds(self, label: str) -> list[int]:
        """Seeds of an arm's runs, rising."""
        return [run.manifest.spec["seed"] for run in self.results[label]]

    def draws(self, label: str) -> list[str]:
        """What each of an arm's runs was trained on."""
        return matched.draws_of([run.manifest for run in self.results[label]])

    def replicates(self, label: str, values: np.ndarray) -> np.ndarray:
        """The independent ones among an arm's runs, (runs, ...)."""
        return draws.replicates(values, self.draws(label))

    def count(self, label: str) -> int:
        """Independent replicates of an arm."""
        return len(self.replicates(label, np.zeros(len(self.results[label]))))

    def paired(self, a: str, b: str) -> bool:
        """Whether the paired interval decides between two arms. Runs that share a draw have no partner in the other arm."""
        if any(draws.nested(self.draws(label)) for label in (a, b)):
            if self.pairing == "seed":
                raise InputError(
                    f"The pairing is seed, but runs of {a} or {b} share a draw of the arm: set it to none."
                )
            return False
        return paired_by_seed(self.pairing, self.seeds(a), self.seeds(b))


def judge(
    root: Root,
    name: str,
    arms: Mapping[str, Sequence[str]],
    *,
    allow: Sequence[str] = (),
    outside: Sequence[str] = (),
    core: bool = False,
    target: str = "all",
    pairing: Pairing = "auto",
    control: Control | None = None,
    strata_by: Score | None = None,
    level: float = 0.95,
) -> Verdict:
    """Compare every pair of arms. `arms`: {label: ids of its finished runs, one a seed}.

    `target`: which documents decide. The holdout is a sample of the whole pool, so an arm that leaves out the
    pool's worst documents is examined on them too; "upper half" asks about the better-rated half alone, where in turn an arm of
    such documents is at home; "outside/NAME" asks one of the texts from elsewhere. `pairing`: whether runs are paired by seed (see `paired_by_seed`); choose it before the first
    look. `allow`: differences beside selection that are meant, by path ("arm.order"). `outside`: texts from elsewhere that every
    run was scored on, by the names of `runs/<run>/outside/<name>`. `core`: compare `runs/<run>/core` of every run too.
    `control`: "aa" if arms are meant to be equal. `strata_by`: the score that the holdout's halves and deciles are by, if not that
    of the arms: `pools/<pool>/strata` has it. With more than one pair, the intervals of the target are Bonferroni-adjusted
    so that all of them hold together with probability `level`, and p-values likewise; so are the bands of all strata of all pairs.
    The other intervals of strata explore.

    Raises InputError when the name cannot be a folder's, arms are not matched, an arm has the same seed twice, seeds that are to be paired differ between
    arms, a run is not finished, or what a run or its scores were made from has other content now.
    """
    _require_name(name)
    target = find_target(target, outside)
    if pairing not in (known := get_args(Pairing)):
        raise InputError(f"The pairing {pairing!r} is unknown: take one of {', '.join(known)}.")
    if control not in (None, *get_args(Control)):
        raise InputError(f"The control {control!r} is unknown: take {' or '.join(get_args(Control))}, or leave it out.")
    matched.require_pairing(pairing, control)
    results = _by_seed(_open(root, arms, lambda run: run.result))
    arms = {label: [_run(run) for run in runs] for label, runs in results.items()}
    allowed = _require_comparable(root, results, allow, control)
    divided_by, strata = find_strata(root, results, spelled_out(strata_by) if strata_by else None)
    documents, holdout = sum_scores(results, strata=strata)
    if target in HALVES:
        matched.require_two_scores(set(documents.score[np.isfinite(documents.score)].tolist()), target)
    case = Case(
        results=results,
        documents=documents,
        holdout=holdout,
        texts={text: sum_scores(_open(root, arms, partial(RunFolder.outside, texts=text)), text) for text in outside},
        answers=answers.read(_open(root, arms, lambda run: run.core)) if core else None,
        target=target,
        pairing=pairing,
        level=level,
        divided_by=divided_by,
    )
    scored = {label: _arm(label, case) for label in results}
    first = next(iter(results.values()))[0].manifest
    return Verdict(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code=code_version(),
        level=level,
        level_of_a_pair=case.level_of_a_pair,
        target=target,
        pairing=pairing,
        outside=tuple(outside),
        core=core,
        control=control,
        strata_by=score_used(root, first.inputs["pool"], divided_by),
        pool=first.inputs["pool"],
        tokens=first.facts.get("tokens"),
        holdout=HoldoutSize(
            documents=len(documents.document),
            bytes=int(documents.bytes.sum()),
            clusters=documents.clusters,
            clusters_are="blocks of neighbouring rows" if documents.blocks else "single documents",
        ),
        matched=Matched(allowed=allowed, unknown=matched.unknown_of_runs(root, _manifests(results))),
        arms=tuple(scored.values()),
        comparisons=tuple(worded(_comparison(a, b, case), scored[a], scored[b]) for a, b in combinations(arms, 2)),
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


def _by_seed(results: Mapping[str, Sequence[Artifact]]) -> dict[str, list[Artifact]]:
    return {label: sorted(runs, key=lambda run: run.manifest.spec["seed"]) for label, runs in results.items()}


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
            raise InputError(f"The arm {label} has two runs with seed {twice[0]}: give one run a seed.")
    matched.require_other_trainings({label: [run.manifest for run in runs] for label, runs in results.items()}, control)
    manifests = _manifests(results)
    fronts = [label for label, runs in results.items() if any(matched.reads_front(run.manifest) for run in runs)]
    found = matched.require_matched(matched.differences_of_runs(root, manifests), allow)
    return found | matched.require_fair_budgets(fronts, allow)


def _arm(label: str, case: Case) -> ArmScores:
    runs, holdout = case.results[label], case.holdout
    values = bits_per_byte(holdout.nats[label], holdout.sizes)
    means = case.replicates(label, values).mean(0)
    manifests, drawn = [run.manifest for run in runs], case.draws(label)
    scores = case.scores(label)
    parts = draws.parts(scores, drawn)
    return ArmScores(
        label=label,
        arm=runs[0].manifest.inputs["arm"],
        runs=tuple(_run(run) for run in runs),
        seeds=tuple(case.seeds(label)),
        bpb=float(means[0]),
        bpb_by_seed=tuple(values[:, 0].tolist()),
        target_by_seed=tuple(scores.tolist()),
        deviation=float(scores.std(ddof=1)) if len(runs) > 1 else None,
        draws=tuple(each.inputs["arm"] for each in manifests) if len(set(drawn)) > 1 else (),
        redrawn=draws.redrawn(manifests, drawn),
        at_random=Arm.model_validate(manifests[0].spec["arm"]).at_random,
        deviation_between_draws=parts.between if parts else None,
        deviation_within_draws=parts.within if parts else None,
        strata=tuple(
            StratumScore(kind=s.kind, label=s.label, bpb=_known(mean))
            for s, mean in zip(holdout.strata, means, strict=True)
        ),
        **{name: _mean([run.facts.get(name) for run in runs]) for name in TEXT_READ},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _comparison(a: str, b: str, case: Case) -> Comparison:
    holdout, decides = case.holdout, case.decides
    paired = case.paired(a, b)
    explored = _paired(a, b, case, holdout, case.level, paired)
    texts = {name: _paired(a, b, case, sums, case.level, paired) for name, (_, sums) in case.texts.items()}
    deciding = explored if case.target in TARGETS else texts[case.target.removeprefix(OUTSIDE)]
    overall = deciding.at(case.level_of_a_pair).adjusted(case.pairs)
    bands = explored.together(case.level_of_a_pair)
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
        degrees_of_freedom=_known(overall.degrees_of_freedom[decides]),
        pairing=pairing,
        warnings=_weaknesses(seeds, int(overall.clusters[decides]), case.deciding[0].blocks, pairing),
        detectable=detectable,
        seeds_needed=needed,
        tokens_saved=_savings(a, b, overall, paired, case),
        strata=[
            _row(
                StratumDifference,
                explored,
                i,
                kind=s.kind,
                label=s.label,
                documents=s.documents,
                bytes=s.bytes,
                band_low=_known(bands.low[i]),
                band_high=_known(bands.high[i]),
            )
            for i, s in enumerate(holdout.strata)
            if s.bytes
        ],
        outside=[_row(TextsDifference, differences, 0, label=name) for name, differences in texts.items()],
        tasks=_answers(a, b, case, case.answers, paired) if case.answers else [],
    )


def _paired(a: str, b: str, case: Case, sums: StratumSums, level: float, paired: bool) -> Differences:
    ours, theirs = (case.replicates(label, sums.nats[label]) for label in (a, b))
    return paired_differences(ours, theirs, sums.sizes, paired=paired, level=level)


def _errors(overall: Differences, i: int, level: float) -> StandardErrors:
    documents, seeds = float(overall.error_documents[i]), float(overall.spread.error[i])
    with np.errstate(invalid="ignore"):
        return StandardErrors(
            documents=_known(documents),
            seeds=_known(seeds),
            reach_documents=_known(documents * stdtrit(overall.clusters[i] - 1, (1 + level) / 2)),
            reach_seeds=_known(seeds * stdtrit(overall.degrees_of_freedom[i], (1 + level) / 2)),
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
        found = {"correlation": _known(measured.estimate), "low": _known(measured.low), "high": _known(measured.high)}
    other = None
    nested = any(draws.nested(case.draws(label)) for label in (a, b))
    if len(shared) >= 2 and seeds[a] == seeds[b] and not nested:
        other = Difference.model_validate(
            _chance(
                _paired(a, b, case, case.deciding[1], case.level_of_a_pair, not paired).adjusted(case.pairs),
                case.decides,
            )
        )
    return SeedPairing(asked=case.pairing, paired=paired, shared=len(shared), other=other, **found)


def _weaknesses(seeds: int, clusters: int, blocks: bool, pairing: SeedPairing) -> list[Weakness]:
    found: dict[Weakness, bool] = {
        "two seeds": seeds == 2 and not pairing.paired,
        "opposed seeds": not pairing.paired and pairing.high is not None and pairing.high < 0,
        "few clusters": clusters < ENOUGH_CLUSTERS,
        "single documents": not blocks,
    }
    return [weakness for weakness, there in found.items() if there]


def _row(record: type[Row], found: Differences, i: int, /, **fields: object) -> Row:
    """Stratum `i` of the differences as a record with these other fields."""
    return record.model_validate({**_chance(found, i), "clusters": int(found.clusters[i]), **fields})


def _chance(found: Differences, i: int) -> dict[str, float | None]:
    """The fields of a `Difference`."""
    values = {"difference": found.estimate[i], "low": found.low[i], "high": found.high[i], "p": found.p[i]}
    return {name: _known(value) for name, value in values.items()}


def _power(
    difference: float, overall: Differences, seeds: int, case: Case
) -> tuple[list[Detectable], Detectable | None]:
    """What this many seeds could have shown and what more would; and how many would show a difference as large as this one."""
    if not overall.covers_seeds:
        return [], None
    variances = overall.spread.variances[:, case.decides]
    error_documents = _known(overall.error_documents[case.decides]) or 0.0
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
        documents=_known(overall.error_documents[case.decides]) or 0.0,
        clusters=int(overall.clusters[case.decides]),
    )
    facts = case.results[better][0].facts
    if not saved.estimate or not (facts.get("tokens") and facts.get("batch_tokens")):
        return saved
    budget = shortened(saved.estimate, facts["tokens"], facts["batch_tokens"])
    return saved.model_copy(update={"budget": budget})


def _run(result: Artifact) -> str:
    return RunFolder.of(result.name).id


def _known(value: float) -> float | None:
    """A plain float; None for what is not known."""
    return float(value) if np.isfinite(value) else None
