"""One run as a whole, and the texts and questions it is scored on besides."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, GetJsonSchemaHandler, Tag
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

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


BUNDLE: Literal["bundle"] = "bundle"
"""The questions that FabRating ships, in place of a URL or of a whole list."""


class AnyOf:
    """Of a union whose members are told apart: its schema is anyOf, which every form shows as a choice."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        return {"anyOf" if name == "oneOf" else name: value for name, value in schema.items()}


class Questions(Spec):
    """Questions with right answers that finished runs are scored on, beside the holdout of their pool."""

    name: Name = Field(BUNDLE, description="Readable part of their name.")
    url: Url = Field(
        BUNDLE,
        description="A .parquet or .jsonl file, or a folder of such: az://container/prefix, file:///folder, "
        "hf://organisation/dataset, or bundle for those that FabRating ships. Their fields: context (or question), answer, and if "
        "there are any, choices (a list; the answer is one of them, or its place from 0) and task (questions of one task are one "
        "cluster).",
    )
    questions: int = Field(5_000, ge=1, le=100_000, description="So many are taken, the first by file name and place.")


QuestionSets = Annotated[
    Annotated[list[Questions], Field(max_length=64), Tag("list")] | Annotated[Literal["bundle"], Tag("word")],
    Discriminator(lambda given: "word" if isinstance(given, str) else "list"),
    AnyOf(),
]
"""What runs are asked, or `bundle` alone. Told apart by type, so that a fault in a list is the only one that is said."""


def asked(sets: QuestionSets) -> list[Questions]:
    """The sets of questions as a list."""
    return [Questions()] if isinstance(sets, str) else sets


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
