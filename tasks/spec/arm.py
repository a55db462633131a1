"""An arm: which documents of the pool are trained on, and in which order."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.spec.base import Column, Count, Name, Seed, Share, Spec, Url, if_set
from tasks.spec.pool import Pool
from tasks.spec.score import Formula, Score, columns_of, spelled_out

Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Scores divided by less may overflow, and equal keys are drawn at random."""


class Part(Spec):
    """One of the selections that an arm mixes."""

    select: Literal["top", "bottom", "random", "temperature"] = Field(
        "top", description="How the part takes its documents, as of an arm."
    )
    subset: Name | None = Field(
        None, description="Take documents of this source alone, one of the pool's sources. Empty: as the arm says."
    )
    temperature: Temperature = Field(2.0, description="Only for select=temperature: higher is closer to random.")
    weight: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Its share of the arm's documents, or tokens, against the weights of the other parts.",
    )


class Arm(Spec):
    """Which documents of the pool are trained on, and in which order: the one thing in which arms differ."""

    name: Name = Field("top16", description="Readable part of the arm's name.")
    select: Literal["top", "bottom", "random", "temperature", "all", "subset"] = Field(
        "top",
        description="top and bottom by score; random; temperature: sampled with weights exp(score / temperature); "
        "all: the whole population; subset: all of one source.",
    )
    share: Share = Field(
        0.165, description="Part of its population's documents that the arm takes, after where and ids."
    )
    order: Literal["best-first", "shuffled", "worst-first"] = Field(
        "best-first", description="The order in which the trainer meets the documents."
    )
    score: Score | None = Field(
        None,
        description="What documents are ranked by: columns and their weights, for a weighted mean, or an expression such as "
        "'factual_accuracy_average - 0.5 * lesson_engagement_average'. Empty: the pool's score.",
    )
    where: Formula | None = if_set(
        None,
        description='Only documents for which this is true, such as \'factual_accuracy_average > 3 and dump in ("CC-MAIN-2023-50", '
        '"CC-MAIN-2024-10")\'. A column whose name has blanks or hyphens goes in backticks. Empty: no filter.',
    )
    subset: Name | None = if_set(
        None, description="Take documents of this source alone, one of the pool's sources, by whatever selection."
    )
    ids: Url | None = if_set(
        None,
        description="Only documents on this list: a parquet, csv or text file with an id a line, at any URL that fsspec reads. Empty: no list.",
    )
    id_column: Column = if_set("id", description="The column that holds a document's id; only for ids.")
    share_of: Literal["documents", "tokens"] = if_set(
        "documents",
        description="What the share counts. tokens: documents are taken in the order of selection until they hold that part of the "
        "population's tokens, by the pool's token counts.",
    )
    min_score: float | None = if_set(
        None,
        ge=-1e9,
        le=1e9,
        description="Take every document with at least this score, instead of a share. Only for select=top.",
    )
    match: Column | None = if_set(
        None,
        description="A column, such as source, whose values have the same proportions in the arm as in its population before where and ids.",
    )
    population: tuple[Column, ...] | None = Field(
        None,
        max_length=64,
        description="Columns in which a document must have a rating to be taken, by whatever selection: arms and their controls "
        "draw from the same documents. Not given: those of its score. An empty list: every document.",
    )
    unrated: Literal["exclude", "lowest"] = Field(
        "exclude",
        description="Documents without a composite score. exclude: taken by no selection by score. lowest: ranked below all others.",
    )
    tokens: Count | None = Field(
        None, description="Take documents until they hold this many tokens, instead of a share of the documents."
    )
    documents: Count | None = if_set(None, description="Take this many documents, instead of a share.")
    parts: tuple[Part, ...] = if_set(
        (),
        max_length=16,
        description="Mix several selections instead of one: the arm is as large as its share says, and each part takes its weight of "
        "that by its own selection. A document that several parts select counts for the first of them, and the others take their next "
        "ones.",
    )
    temperature: Temperature = Field(2.0, description="Only for select=temperature: higher is closer to random.")
    epochs: int = if_set(
        1,
        ge=1,
        le=100,
        description="How often each row that is trained on is read. A shuffled arm is reshuffled each time; the others are read in "
        "their order each time. A budget takes part of the rows, as often.",
    )
    deduplicate: bool = Field(False, description="Keep one of several documents with exactly the same text.")
    documents_per_shard: int = Field(14_000, ge=16, le=1_000_000, description="Documents of one text shard.")
    seed: Seed = Field(42, description="Seed of a random or temperature selection, of a shuffled order and of ties.")

    @model_validator(mode="after")
    def _subset_is_named(self) -> "Arm":
        if self.select == "subset" and self.subset is None:
            raise ValueError("select is subset, but subset names no source: name one of the pool's sources")
        return self

    @model_validator(mode="after")
    def _one_size(self) -> "Arm":
        if self.tokens is not None and self.documents is not None:
            raise ValueError(f"tokens {self.tokens:,} and documents {self.documents:,} are both given: leave one empty")
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if isinstance(self.score, dict) and self.score and not columns_of(self.score):
            raise ValueError("score: no column has a weight above 0; give one, or leave it empty")
        if self.min_score is not None and (
            self.select != "top" or self.parts or self.documents or self.sized_by_tokens
        ):
            raise ValueError(
                "min_score: it is a size of its own, for select=top; use where, which goes with any selection"
            )
        if self.match is not None and (self.whole or self.parts or self.sized_by_tokens or self.min_score is not None):
            raise ValueError(
                "match: it divides a number of documents among groups; it does not go with select=all or subset, parts, tokens or min_score"
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether the selection takes every document that it may take."""
        return self.select in ("all", "subset") and not self.parts

    @property
    def at_random(self) -> bool:
        """Whether chance decides which documents the arm takes, ties aside."""
        selections: set[str] = {part.select for part in self.parts} or {self.select}
        return bool(selections & {"random", "temperature"})

    @property
    def by_score(self) -> bool:
        """Whether the selection depends on scores, and so leaves out documents without one."""
        selections: set[str] = {part.select for part in self.parts} or {self.select}
        return bool(selections & {"top", "bottom", "temperature"}) and self.unrated == "exclude"

    @property
    def sized_by_tokens(self) -> bool:
        """Whether the arm takes documents until they hold so many tokens, or such a share of them."""
        if self.tokens is not None or self.documents is not None:
            return self.tokens is not None
        return self.share_of == "tokens" and not self.whole

    def of(self, pool: Pool) -> "Arm":
        """The arm with its score and its population spelled out, as it takes documents of this pool; again, it stays as it is."""
        score = spelled_out(self.score or (pool.score if pool.format != "unrated" else {}))
        population = self.population
        if population is None:
            rated = (pool.format == "rated" or (self.score and pool.format == "unrated")) and self.unrated == "exclude"
            population = columns_of(score) if rated else ()
        return self.model_copy(update={"score": score, "population": population})


def with_common_population(pool: Pool, arms: Sequence[Arm]) -> list[Arm]:
    """The arms with one population: the documents that have every rating which any of them uses."""
    settled = [arm.of(pool) for arm in arms]
    used = {column for arm in settled for column in arm.population or ()}
    used |= {column for arm in settled if arm.by_score and arm.score for column in columns_of(arm.score)}
    if len({arm.population for arm in arms}) == 1 and all(set(arm.population or ()) == used for arm in settled):
        return list(arms)
    return [arm.model_copy(update={"population": tuple(sorted(used))}) for arm in arms]
