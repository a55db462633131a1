"""`verdicts/<verdict>/verdict.json`: which arm is better, by how much, how sure. The keys of the file are the fields below.

A difference is the first arm minus the second, in bits per byte unless it says otherwise: below 0 the first arm is better.
None stands for what cannot be known, such as an interval from too few clusters.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, computed_field

from tasks.records import caveats
from tasks.records.record import Record
from tasks.records.registration import Registered
from tasks.records.stopping import Decision
from tasks.spec import Draw, Score, Shape
from tasks.store.artifact import write_atomic

OUTSIDE, QUESTIONS = "outside/", "questions/"
Target = (
    Literal["all", "lower half", "upper half"]
    | Annotated[
        str,
        Shape(
            f"(?:{OUTSIDE}|{QUESTIONS})[a-z0-9_-]{{1,60}}",
            "a target: outside/ and the name of texts, or questions/ and the name of questions",
        ),
    ]
)
"""Which documents decide: all of the holdout, one half of it by score, `outside/<name>`: texts from elsewhere, or
`questions/<name>`: the right answers to questions."""
Control = Literal["aa"]
"""aa: equal arms, compared on purpose, to see how far they seem to differ."""
Pairing = Literal["auto", "seed", "none"]
"""Whether seeds that two arms share are paired: by a rule that looks at the numbers of seeds alone, always, or never."""
FEWEST_PAIRS = 3
"""From this many shared seeds on, "auto" pairs."""
Kind = Literal["all", "half", "decile", "length", "source", "near", "taken", "column"]
"""near: with and without near copies in arms. taken: documents of the holdout that one arm's rule would rather take than the other's.
column: by a column of the pool that was asked for."""
Conclusion = Literal["better", "equivalent", "not distinguishable", "one seed"]
Weakness = Literal["two seeds", "opposed seeds", "few clusters", "single documents", "long documents"]
"""What may make an interval worse than it says; `tasks.verdict.wording` puts each into words."""


class Difference(Record):
    """An estimate with its interval and a two-sided p-value."""

    difference: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class StratumDifference(Difference):
    """The difference on a part of the holdout, with an interval of its own, which explores, and a band that holds for all at once."""

    kind: Kind
    label: str
    documents: int
    bytes: int
    clusters: int
    """Those with documents in this stratum."""
    column: str | None = None
    """Of the pool, that the stratum is by, where its kind is `column`."""
    band_low: float | None = None
    """The bands of all strata of all pairs hold together with the verdict's level. Verdicts from before have none."""
    band_high: float | None = None

    @property
    def stands_out(self) -> bool:
        """Whether the band is known and does not hold 0: a finding, however many strata were looked at."""
        return self.band_low is not None and self.band_high is not None and not self.band_low <= 0 <= self.band_high


class CleanDifference(Difference):
    """The difference on the documents of the target that have no near copy in any arm of the verdict, beside the one that decides."""

    difference: float | None  # type: ignore[assignment]
    """None where every document of the target has a near copy."""
    documents: int
    bytes: int
    clusters: int
    left_out: int
    """Documents of the target that have near copies."""
    leaked: dict[str, int]
    """Of all documents that were scored, how many have near copies in which of the two arms."""


class TextsDifference(Difference):
    """The difference on texts from elsewhere, by their name in `runs/<run>/outside/<name>`."""

    label: str
    clusters: int


class AccuracyDifference(Difference):
    """Of the questions with choices, the shares (0 to 1) that the arms answer right. Above 0 the first arm is better."""

    a: float
    b: float


class QuestionsDifference(Difference):
    """The difference on right answers to questions, by their name in `runs/<run>/questions/<name>`; clusters are tasks."""

    label: str
    clusters: int
    questions: int
    choices: int
    """Questions with choices, which the accuracies are of."""
    accuracy: AccuracyDifference | None
    """None without choices, as the next."""
    accuracy_normed: AccuracyDifference | None
    """By the highest log-likelihood per character."""


class TaskDifference(Difference):
    """CORE or one of its tasks: centered accuracies (0 is guessing, 1 is all right). Above 0 the first arm is better."""

    label: str
    a: float
    b: float


class StandardErrors(Record):
    """The two parts of a difference's standard error, and half the width of the interval that each part alone would make."""

    documents: float | None
    seeds: float | None
    reach_documents: float | None = None
    reach_seeds: float | None = None


def rough(error: float | None) -> str:
    """A standard error as people read it: 0.00024, or unknown."""
    return "unknown" if error is None else f"{error:.2g}"


class Detectable(Record):
    """The difference that `seeds` seeds an arm show with a probability of 80 %."""

    seeds: int
    difference: float


class SeedPairing(Record):
    """How the seeds of two arms were treated, and what treating them the other way would have given."""

    asked: Pairing
    paired: bool
    """Whether the interval that decides pairs the arms' runs by seed."""
    shared: int
    """Seeds that both arms have."""
    correlation: float | None
    """Of the two arms' scores on the target over the shared seeds; None for fewer than 3 or without spread."""
    low: float | None
    high: float | None
    """Its 95 % interval, None for fewer than 4."""
    other: Difference | None
    """The interval that does not decide: unpaired, or paired. None unless both arms have the same two seeds or more."""


class ShorterRuns(Difference):
    """Runs of the better arm that really stopped early, minus the other arm's whole runs, on the target: do the savings hold?"""

    saved: float
    """Share (0 to 1) of its tokens that they did without."""
    runs: tuple[str, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def conclusion(self) -> Literal["confirmed", "refuted", "open"]:
        """confirmed: they end below the other arm's runs; refuted: above; open: not told apart."""
        if not self.excludes_zero:
            return "open"
        return "confirmed" if self.difference < 0 else "refuted"


class TokensSaved(Record):
    """The share (0 to 1) of its tokens that the better arm could have done without, at least, by its curves, with an interval of its own."""

    estimate: float | None
    low: float | None
    high: float | None
    budget: int | None = None
    """Tokens that the estimate leaves: runs of the better arm that stop there put it to the test (`tasks.verdict.shortened`)."""
    checked: ShorterRuns | None = None
    """What such runs found."""


class Comparison(Difference):
    """One pair of arms. Its interval and p-value are adjusted for the number of pairs; the intervals of strata explore and are not."""

    level: float
    """Of its interval."""
    a: str
    b: str
    seeds: int
    """Of the arm with fewer."""
    covers_seeds: bool
    """Whether the interval holds for new seeds too; with one seed in an arm it holds only for new documents."""
    target: Target = "all"
    on: str
    """The target as the sentence names it, "" for all documents."""
    clusters: int
    errors: StandardErrors
    degrees_of_freedom: float | None
    """Of Student's t by which the seeds' error enters; None with one seed in an arm."""
    pairing: SeedPairing
    warnings: tuple[Weakness, ...]
    detectable: tuple[Detectable, ...]
    seeds_needed: Detectable | None
    """The fewest seeds an arm that show a difference as large as this one."""
    tokens_saved: TokensSaved
    strata: tuple[StratumDifference, ...]
    clean: CleanDifference | None = None
    """None where no document has a near copy, or where they were not counted."""
    outside: tuple[TextsDifference, ...]
    questions: tuple[QuestionsDifference, ...] = ()
    tasks: tuple[TaskDifference, ...]
    margin: float | None = None
    """Arms that differ by less are equivalent, by the stopping rule."""
    decision: Decision | None = None
    """What all looks by the stopping rule conclude; None without one."""
    sentence: str = ""
    caveats: tuple[str, ...] = ()
    """What the sentence ends with, after its finding. Not told apart in older verdicts."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def conclusion(self) -> Conclusion:
        """What the interval, or the looks by a stopping rule, allow to conclude about training on these arms."""
        if not self.covers_seeds:
            return "one seed"
        if self.decision is not None:
            found: dict[Decision, Conclusion] = {"better": "better", "worse": "better", "equivalent": "equivalent"}
            return found.get(self.decision, "not distinguishable")
        return "better" if self.excludes_zero else "not distinguishable"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def better(self) -> str | None:
        """The better arm, if there is one."""
        if self.conclusion != "better":
            return None
        return {"better": self.a, "worse": self.b}[self.decision] if self.decision else self.lower

    @property
    def finding(self) -> str:
        return caveats.finding(self.sentence, self.caveats)

    @property
    def pairing_gain(self) -> float | None:
        """Width of the interval that decides as a part of the other's: below 1, pairing as it is gained something. None if unknown."""
        other = self.pairing.other
        if other is None or other.low is None or other.high is None or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / (other.high - other.low) if other.high > other.low else None

    @property
    def lower(self) -> str:
        """The arm with fewer bits per byte, whether or not that means anything."""
        return self.a if self.difference < 0 else self.b

    def other(self, arm: str) -> str:
        """The arm of the pair that is not `arm`."""
        return self.b if arm == self.a else self.a


class StratumScore(Record):
    """An arm's mean over seeds on a part of the holdout; None where the part is empty."""

    kind: Kind
    label: str
    bpb: float | None


class ArmScores(Record):
    """One arm with its runs, one a seed: bits per byte on all documents and by stratum."""

    label: str
    arm: str
    """Its name below arms/."""
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    bpb: float
    bpb_by_seed: tuple[float, ...]
    target_by_seed: tuple[float, ...] = ()
    """On the documents that decide."""
    deviation: float | None
    """Standard deviation of one run on the target, over seeds; None for one seed."""
    draws: tuple[str, ...] = ()
    """Names below arms/ of what each run trained on, where chance drew several; () where it was one arm."""
    redrawn: tuple[Draw, ...] | None = None
    """What was redrawn for each run. Unknown in older verdicts, as are the next fields."""
    at_random: bool = False
    """Whether chance decides which documents the arm takes."""
    drawn_of_ties: float | None = None
    """The part of its documents, 0 to 1, that chance drew from those with the score at the cut-off, once for all runs. Unknown where the arm is not
    at hand."""
    deviation_between_draws: float | None = None
    """The part of the deviation that comes from the draw of the documents; None where the design cannot tell, as in the next."""
    deviation_within_draws: float | None = None
    """The part that runs on one draw have."""
    strata: tuple[StratumScore, ...]
    trained_documents: float | None = None
    """What was read of the arm, mean over runs, here and in the next four; see `packed.TrainedText`. Unknown of older runs."""
    text_share: float | None = None
    mean_score: float | None = None
    arm_mean_score: float | None = None
    epochs: float | None = None


class ArmLeaks(Record):
    """Near copies of the holdout, of texts from elsewhere, or of questions, in one arm; of several draws, the mean, but for `leaked`."""

    label: str
    what: str
    documents: int
    """That were looked for."""
    unsearchable: int | None = None
    """Of these, so short that nothing is found to be near them, as questions often are. Unknown in older verdicts."""
    leaked: int
    """Of these, with a near copy in any draw of the arm."""
    copies: float
    """Documents of the arm that are near copies."""
    removed: float
    """Near copies that were left out of the arm."""


class HoldoutSize(Record):
    """What all runs were scored on."""

    documents: int
    bytes: int
    clusters: int
    clusters_are: str
    from_outside: bool = False  # taken from data.holdout, not from the pool


class Matched(Record):
    """Differences beside selection that were allowed, and what could not be compared, by path."""

    allowed: dict[str, str]
    unknown: dict[str, str] = Field(default_factory=dict)


class Verdict(Record):
    """The comparison of every pair of arms on one holdout."""

    format: Literal[2] = 2
    name: str
    created: str
    """ISO 8601, UTC."""
    code: str
    level: float
    level_of_a_pair: float
    """So that the intervals of all pairs hold together with probability `level` (Bonferroni)."""
    target: Target
    pairing: Pairing
    outside: tuple[str, ...]
    questions: tuple[str, ...] = ()
    core: bool
    control: Control | None = None
    strata_by: Score | None = None
    """The score that the holdout's halves and deciles are by. None: unrated, or not recorded."""
    strata_columns: tuple[str, ...] = ()
    """Columns of the pool that the holdout is divided by too."""
    pool: str
    """Its name below pools/."""
    tokens: int | None
    """Trained tokens of a run."""
    holdout: HoldoutSize
    matched: Matched
    arms: tuple[ArmScores, ...]
    comparisons: tuple[Comparison, ...]
    near: tuple[ArmLeaks, ...] = ()
    """By what is held out and arm; () where near copies were not counted."""
    registered: Registered | None = None
    """What was said before the first run and every look since; None for runs that were judged without a plan."""

    @property
    def runs(self) -> list[str]:
        """The runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def sentences(self) -> list[str]:
        """The conclusion of each comparison in words, then what restricts several of them."""
        return caveats.sentences(self.comparisons)

    @classmethod
    def read(cls, path: Path) -> "Verdict":
        """Parse a verdict.json. Raises DamagedError when it is not a verdict or one of an unknown format."""
        return cls.parse(path.read_bytes(), path, "judge the runs again, or use the version that wrote it")

    def write(self, path: Path) -> None:
        write_atomic(path, self.to_json())
