"""What a person fills in to compare arms: the run form in Prefect and the file of `fabrating compare` have these fields."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from tasks.errors import InputError
from tasks.records.stopping import MOST_REPLICATES, StoppingRule
from tasks.records.verdict import Control, Pairing, Target
from tasks.spec import (
    Arm,
    Column,
    Draw,
    Line,
    Name,
    Pool,
    QuestionSets,
    Score,
    Seed,
    Spec,
    Texts,
    Training,
    Url,
    asked,
    with_common_population,
)
from tasks.store.root import DEFAULT_ROOT
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.planning import Budget

Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_REPLICATES)]
Replicates = Annotated[int, Field(ge=1, le=MOST_REPLICATES)]
REDRAW: list[Draw] = ["init", "order", "sample"]
REPLICATES = 4


class ComparisonForm(Spec):
    """Two or more arms of one pool, how they are trained, how often, and what decides which is better."""

    data: Pool = Field(Pool(), description="The pool that all arms draw from, with the holdout that all are scored on.")
    root: Url = Field(
        DEFAULT_ROOT,
        description="Where artifacts are kept: a folder, or az://container/prefix (s3://, gs://) that all workers reach. Left as it is: FABRATING_ROOT.",
    )
    arms: Annotated[list[Arm], Field(min_length=2, max_length=64)] = Field(
        [Arm(order="shuffled"), Arm(name="rand16", select="random", order="shuffled")],
        description="Two or more selections of the pool. Their order must be the same, unless allow names arm.order.",
    )
    train: Training = Field(
        Training(recipe="quiet"),
        description="How every arm is trained, by the quiet recipe unless another is given. Its tokens are the common budget; empty: as "
        "many as the smaller arm's packed rows hold. A larger arm trains on a random part of its rows.",
    )
    name: Name = Field("top16-vs-rand16", description="Name of the verdict.")
    replicates: Replicates | None = Field(
        None,
        description="Runs of each arm, each redrawn as redraw says. Two are the fewest that make a verdict, three or more a good one. "
        f"With neither replicates, seeds nor stop: {REPLICATES}.",
    )
    stop: StoppingRule | None = Field(
        None,
        description="Instead of replicates: add them in rounds, look after each round, and stop when the answer is clear.",
    )
    target: Target = Field(
        "all",
        description="Which documents decide: all of the holdout, as they come in the pool, lower half or upper half of them by score, or "
        "outside/NAME, one of texts, or questions/NAME, one of questions.",
    )
    texts: Annotated[list[Texts], Field(max_length=64)] = Field(
        [], description="Folders of texts that no arm has trained on, to score every run on besides the holdout."
    )
    questions: QuestionSets = Field(
        [],
        description="Questions with right answers to ask every run besides: sets of them, or bundle for the ones that FabRating ships.",
    )
    core: bool = Field(
        False,
        description="Compare nanochat's CORE tasks too. Needs nanochat and its evaluation bundle where runs are trained.",
    )
    strata: Annotated[list[Column], Field(max_length=16)] = Field(
        [],
        description="Further columns of the pool, such as language or dump, whose parts of the holdout the verdict tells apart: texts by "
        "value, numbers by fifths, rare values together.",
    )
    strata_by: Score | None = Field(
        None,
        description="The score that the holdout's halves and deciles are by: columns and their weights, or an expression. Empty: the "
        "pool's score.",
    )
    budget: Budget = Field(
        "tokens", description="What is equal between arms: tokens (those of the smaller arm), or bytes of text."
    )
    pairing: Pairing = Field(
        "auto",
        description="Whether runs of two arms are paired by seed: auto (from 3 seeds on), seed (always) or none.",
    )
    redraw: Annotated[list[Draw], Field(max_length=3)] = Field(
        REDRAW,
        description="What a replicate draws anew: init (initial weights), order (of a shuffled arm), sample (documents of a random or "
        "temperature arm, rows of a budget). What is not named is the same in all runs.",
    )
    check_savings: bool = Field(
        False,
        description="If an arm is better, train its replicates again on as many fewer tokens as its curves say that it saved, and say "
        "whether they still reach the other arm. Only for all or a half of the holdout as target.",
    )
    control: Control | None = Field(
        None,
        description="aa if arms are equal on purpose, to see how far equal arms seem to differ; each arm then gets seeds of its own.",
    )
    seeds: Seeds | None = Field(
        None,
        description="Instead of replicates: seeds of runs that all train on one draw of each arm. They redraw initial weights, the rows "
        "of a budget and the order of a shuffled arm.",
    )
    allow: Annotated[list[Line], Field(max_length=64)] = Field(
        [], description="Differences besides selection that are meant, by their path, such as arm.order."
    )

    @field_validator("train", mode="before")
    @classmethod
    def _quiet(cls, given: Any) -> Any:
        """Fields of a training leave its recipe as it is."""
        return {"recipe": "quiet", **given} if isinstance(given, Mapping) else given

    def spec(self) -> ComparisonSpec:
        """The comparison that is asked for. Raises InputError when more than one thing says how many runs an arm gets."""
        return ComparisonSpec(
            name=self.name,
            pool=self.data,
            arms=with_common_population(self.data, self.arms),
            seeds=self._seeds(),
            training=self.train,
            budget=self.budget,
            target=self.target,
            pairing=self.pairing,
            allow=self.allow,
            texts=self.texts,
            questions=asked(self.questions),
            core=self.core,
            control=self.control,
            strata_by=self.strata_by,
            strata=self.strata,
            redraw=None if self.seeds else self.redraw,
            stop=self.stop,
            check_savings=self.check_savings,
        )

    def _seeds(self) -> Sequence[int]:
        """The seeds of an arm's runs; replicates are numbered from 1."""
        given = {"seeds": self.seeds, "replicates": self.replicates, "stop": self.stop}
        if len(named := [name for name, value in given.items() if value is not None]) > 1:
            raise InputError(
                f"{' and '.join(named)} all say how many runs an arm gets: give one of them, and leave the others out (null)."
            )
        if self.seeds and list(self.redraw) != REDRAW:
            raise InputError(
                "seeds and redraw are both given, but seeds redraw all but an arm's documents: give replicates with redraw."
            )
        return self.seeds or range(1, 1 + (self.stop.first_look if self.stop else self.replicates or REPLICATES))


EXAMPLE = ComparisonForm(
    name="top16-vs-rand16",
    arms=[
        Arm(name="top16", select="top", share=0.165, order="shuffled"),
        Arm(name="rand16", select="random", share=0.165, order="shuffled"),
    ],
    data=Pool(name="fineweb-edu", source="az://raw/fineweb-edu"),
    train=Training(recipe="quiet", depth=6, sequence_length=1_024, tokens=20_000_000),
    replicates=REPLICATES,
    root=DEFAULT_ROOT,
)
"""A model that one GPU trains in a minute or two, four times for each of two arms."""
