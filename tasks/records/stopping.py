"""When a comparison stops: the rule that is registered before the first run, the looks that were taken, and how it ended."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.records.record import Record
from tasks.spec import Spec

MOST_REPLICATES = 64
Decision = Literal["better", "worse", "equivalent", "undecided", "go on"]
"""better, worse: the first arm of a pair than the second. undecided: the replicates or dollars are used up."""


class StoppingRule(Spec):
    """Add replicates in rounds, look after each round, and stop when the answer is clear."""

    margin: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Bits per byte: arms that differ by less are equivalent. Empty: a comparison never ends as equivalent.",
    )
    max_replicates: int = Field(8, ge=2, le=MOST_REPLICATES, description="Replicates of an arm at most.")
    max_dollars: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="No round is started that would bring the comparison above this cost. Empty: no limit.",
    )
    first_look: int = Field(3, ge=2, le=MOST_REPLICATES, description="Replicates of an arm in the first round.")
    round: int = Field(1, ge=1, le=MOST_REPLICATES, description="Replicates that each later round adds to an arm.")

    @model_validator(mode="after")
    def _order(self) -> "StoppingRule":
        if self.first_look > self.max_replicates:
            raise ValueError(
                f"first_look: {self.first_look} replicates are more than max_replicates ({self.max_replicates}); lower one "
                "or raise the other"
            )
        return self

    @property
    def looks(self) -> tuple[int, ...]:
        """Replicates of an arm at each planned look."""
        return (*range(self.first_look, self.max_replicates, self.round), self.max_replicates)


class Look(Record):
    """The interval of one pair of arms at one look, at the level of `look_alpha`; None where that look could conclude nothing."""

    replicates: int
    """Of the arm with fewer."""
    low: float | None
    high: float | None
