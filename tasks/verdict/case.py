"""What comparisons are computed from: the runs of all arms with their scores, and what is asked of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.errors import InputError
from tasks.records.layout import RunFolder
from tasks.records.near import HOLDOUT, of_questions
from tasks.records.verdict import QUESTIONS, ArmScores, Pairing, StratumScore, Target
from tasks.spec import Arm, Score
from tasks.store.artifact import Artifact
from tasks.verdict import answers, draws, matched
from tasks.verdict.asked import Accuracies
from tasks.verdict.leaks import Leaks
from tasks.verdict.paired import bits_per_byte, level_of_a_pair
from tasks.verdict.replicates import paired_by_seed
from tasks.verdict.strata import ScoredDocuments, StratumSums
from tasks.verdict.target import TARGETS

TEXT_READ = ("trained_documents", "text_share", "mean_score", "arm_mean_score", "epochs")
"""Facts of a run that its arm's scores repeat."""


@dataclass(frozen=True)
class Case:
    """All that comparisons are computed from."""

    results: Mapping[str, Sequence[Artifact]]
    documents: ScoredDocuments
    holdout: StratumSums
    beside: Mapping[Target, tuple[ScoredDocuments, StratumSums]]
    """Texts from elsewhere and questions, which are documents here, by the target that names them."""
    accuracies: Mapping[Target, Accuracies]
    """Of the questions among them."""
    answers: answers.Answers | None
    target: Target
    pairing: Pairing
    level: float
    divided_by: Score | None
    """The score of the strata, if there is one."""
    leaks: Mapping[str, Leaks]
    """Near copies in arms of the holdout, of texts from elsewhere and of questions, by name, where they were counted."""

    @property
    def deciding(self) -> tuple[ScoredDocuments, StratumSums]:
        """The documents of the target: the holdout, texts from elsewhere, or questions."""
        return (self.documents, self.holdout) if self.target in TARGETS else self.beside[self.target]

    @property
    def leaked(self) -> dict[str, int]:
        """How many of the deciding documents' kind have near copies, by arm; {} where that was not counted."""
        kind, _, name = self.target.partition("/")
        what = HOLDOUT if self.target in TARGETS else of_questions(name) if f"{kind}/" == QUESTIONS else name
        return {arm.label: arm.leaked for arm in self.leaks[what].arms} if what in self.leaks else {}

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
        return math.comb(len(self.results), 2)

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


def arm_scores(label: str, case: Case) -> ArmScores:
    """One arm of a verdict."""
    runs, holdout = case.results[label], case.holdout
    values = bits_per_byte(holdout.nats[label], holdout.sizes)
    means = case.replicates(label, values).mean(0)
    manifests, drawn = [run.manifest for run in runs], case.draws(label)
    scores = case.scores(label)
    parts = draws.parts(scores, drawn)
    return ArmScores(
        label=label,
        arm=runs[0].manifest.inputs["arm"],
        runs=tuple(run_of(run) for run in runs),
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
            StratumScore(kind=s.kind, label=s.label, bpb=known(mean))
            for s, mean in zip(holdout.strata, means, strict=True)
        ),
        **{name: _mean([run.facts.get(name) for run in runs]) for name in TEXT_READ},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def run_of(result: Artifact) -> str:
    """The id of a run, by its result."""
    return RunFolder.of(result.name).id


def known(value: float) -> float | None:
    """A plain float; None for what is not known."""
    return float(value) if np.isfinite(value) else None
