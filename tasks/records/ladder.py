"""`ladders/<ladder>/ladder.json`: how far arms differ at several scales, and what that says of a larger one. Its keys are the fields below.

A difference is the first arm minus the second in bits per byte on the target's documents: below 0 the first arm is better.
"""

from pathlib import Path
from typing import Literal

from pydantic import computed_field

from tasks.records import caveats
from tasks.records.record import Record
from tasks.records.verdict import Pairing, Target
from tasks.store.artifact import write_atomic

CALIBRATED = 10
"""The fewest pairs with a larger scale predicted from smaller ones for the covered share to mean anything."""


class Scale(Record):
    """A depth on its tokens."""

    depth: int
    tokens: int
    """Trained tokens of a run."""
    flops: float
    """Of a run."""
    verdict: str | None
    """Name of the artifact of the comparison there; None at the target, which is not trained."""


class Rung(Record):
    """How far a pair of arms differs at one scale."""

    depth: int
    flops: float
    difference: float
    low: float | None
    """Of the comparison's own interval."""
    high: float | None
    error_seeds: float
    """The standard error that the replicates give it."""
    error_documents: float
    """That of the documents, which all scales share."""
    replicates: int


class Forecast(Record):
    """What the rungs of a pair say of the target."""

    a: str
    b: str
    rungs: tuple[Rung, ...]
    difference: float
    """The median of what is predicted."""
    low: float
    high: float
    probability: float
    """That the first arm is better at the target, by the prediction."""
    between: float
    """Standard deviation of the difference between scales, around its law."""
    band: tuple[tuple[float, float, float, float], ...]
    """(FLOPs, middle, low, high) of predictions from the largest rung to the target."""
    sentence: str = ""
    caveats: tuple[str, ...] = ()
    """What the sentence ends with, after its finding. Not told apart in older ladders."""

    @property
    def finding(self) -> str:
        return caveats.finding(self.sentence, self.caveats)

    @property
    def better(self) -> str | None:
        """The arm that the interval says is better at the target, if it excludes 0."""
        if self.low <= 0 <= self.high:
            return None
        return self.a if self.high < 0 else self.b


class Trial(Record):
    """A larger scale of a pair of the ledger that was predicted from its smaller ones."""

    a: str
    b: str
    pool: str
    depths: tuple[int, ...]
    """The last one is predicted from those before."""
    difference: float
    """That was found."""
    error: float
    """Its standard error by its replicates."""
    predicted: float
    low: float
    high: float
    """The interval holds for the difference that was found, its replicates' error included."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def covered(self) -> bool:
        return self.low <= self.difference <= self.high


class Backtest(Record):
    """What predictions of this kind were worth under this root."""

    level: float
    trials: tuple[Trial, ...] = ()

    @property
    def covered(self) -> int:
        """Trials whose interval held what was found."""
        return sum(trial.covered for trial in self.trials)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def calibrated(self) -> bool:
        """Whether there are enough trials for the coverage to say something."""
        return len(self.trials) >= CALIBRATED

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        count = len(self.trials)
        held = f"{self.covered} of {count} intervals at {100 * self.level:g} % held what was found" if count else ""
        if self.calibrated:
            return f"Backtest: {held} ({100 * self.covered / count:.0f} %)."
        found = f": {held}" if count else ""
        return f"Not calibrated: {count} of the {CALIBRATED} pairs that a backtest needs have a larger scale in the ledger{found}."


class LadderCost(Record):
    """What the rungs cost against a comparison at the target with as many replicates."""

    flops: float
    """Of all runs of all rungs."""
    target_flops: float
    """Of all runs of the direct comparison."""
    hours: float | None
    """GPU hours (of a CPU: wall hours) of the rungs by measured speed; None where none is known."""
    target_hours: float | None
    dollars: float | None
    target_dollars: float | None

    @property
    def share(self) -> float:
        """The rungs' cost as a part of the direct comparison's: of hours where both are known, else of FLOPs."""
        if self.hours is not None and self.target_hours:
            return self.hours / self.target_hours
        return self.flops / self.target_flops


class Ladder(Record):
    """Comparisons of the same arms at several scales, and what they predict at a larger one."""

    format: Literal[1] = 1
    name: str
    created: str
    """ISO 8601, UTC."""
    code: str
    level: float
    pool: str
    """Its name below pools/."""
    decides: Target
    """Which documents decide."""
    pairing: Pairing
    ratio: float
    """Trained tokens for each scaling parameter, at every scale."""
    replicates: int
    scales: tuple[Scale, ...]
    target: Scale
    forecasts: tuple[Forecast, ...]
    backtest: Backtest
    cost: LadderCost

    @property
    def sentences(self) -> list[str]:
        """What is predicted of each pair, what several share, and what such predictions were worth so far."""
        return [*caveats.sentences(self.forecasts), self.backtest.sentence]

    @classmethod
    def read(cls, path: Path) -> "Ladder":
        """Parse a ladder.json. Raises DamagedError when it is not a ladder or one of an unknown format."""
        return cls.parse(path.read_bytes(), path, "run the ladder again, or use the version that wrote it")

    def write(self, path: Path) -> None:
        write_atomic(path, self.to_json())
