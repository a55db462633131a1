"""One run as a whole, and the texts it is scored on besides."""

from typing import Any, Literal

from pydantic import Field

from tasks.spec.arm import Arm
from tasks.spec.base import Column, Name, Seed, Spec, Url, if_set
from tasks.spec.pool import Pool
from tasks.spec.training import Training


class Texts(Spec):
    """Documents from elsewhere that finished runs are scored on, beside the holdout of their pool."""

    name: Name = Field("outside", description="Readable part of their name.")
    url: Url = Field(
        description="A folder of .parquet, .jsonl or .txt files: az://container/prefix, file:///folder, or "
        "hf://organisation/dataset. A .txt file is one document. No arm should have trained on them.",
    )
    column: Column = Field(
        "text", description="The column of parquet, or the field of JSON lines, that holds a document."
    )
    documents: int = Field(
        5_000, ge=1, le=1_000_000, description="So many are taken, the first by file name and place."
    )


Draw = Literal["init", "order", "sample"]
"""What chance decides of a run: initial weights; the order of a shuffled arm's rows; the rows of a budget below the arm and the
documents of a random or temperature arm."""
DRAWS: tuple[Draw, ...] = ("init", "order", "sample")
HELD_SEED = 1


class Experiment(Spec):
    """One arm from pool to score: what one row of the run ledger is about."""

    pool: Pool = Pool()
    arm: Arm = Arm()
    training: Training = Training()
    seed: Seed = Field(
        1,
        description="Seed of a run: its initial weights, the rows of a budget below the arm, the order of a shuffled arm's rows.",
    )

    def identity(self) -> dict[str, Any]:
        """With the arm as it takes documents of the pool: a score that it names is the same one as that of the pool."""
        return super().identity() | {"arm": self.arm.of(self.pool).identity()}

    held: tuple[Draw, ...] = if_set(
        (), max_length=3, description="What the seed does not redraw: it is the same in all runs, drawn by seed 1."
    )

    def seed_of(self, draw: Draw) -> int:
        """The seed that decides this draw."""
        return HELD_SEED if draw in self.held else self.seed
