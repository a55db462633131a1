"""The pool: where the documents are, how they are rated, what is held out."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.errors import InputError
from tasks.spec.base import CLOSED, LARGE, Column, Cores, Count, Half, Name, Seed, Spec, Url, Written, how, if_set
from tasks.spec.score import Weights, columns_of
from tasks.store.settings import load_settings
from tasks.store.urls import require_unsigned

PEDAGOGICAL = "pedagogical_structure_average"
FACTUAL = "factual_accuracy_average"
ENGAGEMENT = "lesson_engagement_average"

SOURCE, SOURCE_VARIABLE = "$FABRATING_SOURCE", "FABRATING_SOURCE"
"""A source that nobody named: what the environment, or `.env`, says once for all deployments."""

Sources = Annotated[dict[Name, Url], Field(min_length=1, max_length=64, json_schema_extra=CLOSED)]
"""A name and a URL each."""


Near = Annotated[float, Field(ge=0.5, le=1)]
"""A part of a document's passages: most of them."""


class Pool(Spec):
    """The rated documents that every arm of an experiment draws from, with their holdout and tokenizer."""

    source: Url = Field(
        SOURCE,
        description="Where the files are, .parquet or JSON lines (.jsonl, .jsonl.gz, .jsonl.zst): az://container/prefix, s3://bucket/prefix, "
        "gs://bucket/prefix, hf://organisation/dataset, or file:///folder; a folder, one file, or a pattern with *. Left as it is: what "
        "FABRATING_SOURCE says in .env. Not read if sources are given.",
    )
    name: Name = Field("pool", description="Readable part of the pool's name.")
    text_column: Column = Field("text", description="The column that holds a document's text.")
    score: Weights = how(
        {PEDAGOGICAL: 1.0, FACTUAL: 1.0, ENGAGEMENT: 1.0},
        description="The score of arms that name none: columns and their weights, of which it is the weighted mean. A document that lacks "
        "a column with a weight above 0 (null, NaN) has no score.",
    )
    format: Literal["rated", "unrated", "prebuilt"] = Field(
        "rated",
        description="rated: text with score columns. unrated: text alone, arms can only sample at random. "
        "prebuilt: subsets that somebody chose already, taken as they are or at random; scores are read where they exist.",
    )
    sources: Sources | None = if_set(
        None,
        description="Several sources instead of one, each a name and a URL: {top16: az://..., rand16: az://...}. All their files make "
        "one pool with one holdout and one tokenizer; arm.subset names one of them.",
    )
    holdout: Url | None = if_set(
        None,
        description="Take the holdout from here, any data files with the text column, instead of from the pool. Arms leave out "
        "documents with the same text.",
    )
    token_count_column: Column | None = Field(
        "token_count", description="The column with a document's length in tokens, if any: used for plans and budgets."
    )
    holdout_documents: Count = Field(
        20_000, description="Documents set aside for evaluation: the same ones for every arm, trained on by none."
    )
    holdout_fraction: Half = Field(
        0.02, description="The holdout is never more than this part of the pool that it is taken from."
    )
    holdout_near: Near = if_set(
        0.8,
        description="From which part of a held-out document's passages on a document is a near copy of it. One passage, 13 words in a "
        "row, is enough if it is no boilerplate.",
    )
    near: Literal["keep", "remove"] = if_set(
        "keep",
        description="What happens to near copies of the holdout. keep: they stay in the arms, and a verdict is given without the documents "
        "that have any, too. remove: every arm of the pool leaves them out.",
    )
    vocab_size: int = Field(32_768, ge=265, le=65_536, description="Tokens in the vocabulary, 9 special ones included.")
    tokenizer_characters: Annotated[int, Field(ge=1_000, le=10**15), Written(LARGE)] = Field(
        2_000_000_000,
        description="Characters of a random sample of the pool that the tokenizer is trained on.",
    )
    seed: Seed = Field(1337, description="Seed of the holdout and of the tokenizer's sample.")
    skip_bad_files: bool = Field(
        False,
        description="Leave out files that are corrupt, empty or lack a column (they are named) instead of stopping.",
    )
    download: Literal["ranged", "bulk"] = how(
        "ranged", description="ranged: read only the needed columns. bulk: copy whole blobs first, with azcopy."
    )
    workers: Cores | None = how(
        None,
        description="Cores that preparing takes (threads, and a process for every four). Empty: FABRATING_WORKERS, else all.",
    )

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> "Pool":
        if self.sources and self.source != SOURCE:
            raise ValueError(
                f"source and sources are both given ({self.source}; {', '.join(self.sources)}): give one of them"
            )
        return self

    @model_validator(mode="after")
    def _scores(self) -> "Pool":
        if self.format == "rated" and not columns_of(self.score):
            raise ValueError("score: a rated pool needs at least one column with a weight above 0")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that determine content: of `source` and `sources` the one that is read."""
        identity = super().identity() | {"source": self._located}
        if self.sources:
            del identity["source"]
        return identity

    @property
    def _located(self) -> str:
        if self.source != SOURCE:
            return self.source
        load_settings()
        return require_unsigned(os.environ.get(SOURCE_VARIABLE) or SOURCE)

    @property
    def urls(self) -> dict[str, str]:
        """Where the documents come from, {name of the source: URL} by name; a single source has the name "".

        Raises InputError when neither the parameters nor the environment name one.
        """
        if self.sources:
            return dict(sorted(self.sources.items()))
        if self._located == SOURCE:
            raise InputError(
                f"No source is given: fill in data.source, or set {SOURCE_VARIABLE} (and FABRATING_ROOT, where results go) in .env, once for "
                "all deployments."
            )
        return {"": self._located}

    @property
    def address(self) -> str:
        """Its URLs, for messages."""
        return ", ".join(self.urls.values())
