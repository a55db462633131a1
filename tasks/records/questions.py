"""Questions in the tokens of a pool (`choices.parquet`), and a run's answers to them (`answers.parquet`).

A question is a context, the right answer, and any wrong choices; questions of one task are a cluster. A choice is scored as lm-eval
does it: the log-likelihood in nats, summed over the tokens that follow those of the context. The right answer's bits per byte
are what a verdict is on. Where there are choices, the one with the highest log-likelihood is the model's answer (`right`: lm-eval's
acc), or with the highest per character (`right_normed`: its acc_norm); of equal ones the first.
"""

import math
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DamagedError, InputError
from tasks.records.layout import ANSWERS, CHOICES
from tasks.records.scores import SCHEMA, bits_per_byte, deciles
from tasks.store.artifact import Artifact, Work

FORMAT = 1
FORMAT_KEY = b"fabrating.questions"
CHOICES_SCHEMA = pa.schema(
    {
        "question": pa.int64(),  # number within the set, rising
        "task": pa.string(),
        "cluster": pa.int32(),
        "right": pa.bool_(),  # exactly one choice of a question
        "offset": pa.int64(),  # in tokens.bin, where the context's tokens begin, without BOS
        "context": pa.int64(),  # tokens of the context
        "tokens": pa.int64(),  # those that follow, which are scored
        "bytes": pa.int64(),  # of the choice in UTF-8, without a blank before it
        "characters": pa.int64(),
    },
    metadata={FORMAT_KEY: str(FORMAT)},
)
"""One row a choice, those of a question in their order. A question without choices has the right answer alone."""
ANSWERS_SCHEMA = pa.schema(
    {
        "question": pa.int64(),
        "task": pa.string(),
        "cluster": pa.int32(),
        "bytes": pa.int64(),  # of the right answer, as the next two
        "tokens": pa.int64(),
        "nats": pa.float64(),
        "log_likelihoods": pa.list_(pa.float64()),  # of each choice, in their order
        "right": pa.bool_(),  # null without choices, as the next
        "right_normed": pa.bool_(),
    },
    metadata={FORMAT_KEY: str(FORMAT)},
)
"""One row a question."""


class AnswersSummary(TypedDict):
    """Over all questions: bits per byte of the right answers; accuracies over those with choices, None without any."""

    bpb: float
    questions: int
    accuracy: float | None
    accuracy_normed: float | None


def answers_table(log_likelihoods: np.ndarray, choices: pa.Table) -> pa.Table:
    """The answers of a model that gives the `choices` these log-likelihoods (choices,) in nats."""
    question, characters = choices["question"].to_numpy(), choices["characters"].to_numpy()
    starts = np.flatnonzero(np.diff(question, prepend=-1))
    counts = np.diff(starts, append=len(question))
    right = np.flatnonzero(choices["right"].to_numpy())
    normed = log_likelihoods / characters
    answers = {"right": log_likelihoods, "right_normed": normed}
    guesses = {
        name: [
            bool(start + int(np.argmax(values[start : start + count])) == place) if count > 1 else None
            for start, count, place in zip(starts.tolist(), counts.tolist(), right.tolist(), strict=True)
        ]
        for name, values in answers.items()
    }
    taken = choices.take(pa.array(right))
    columns = {name: taken[name] for name in ("question", "task", "cluster", "bytes", "tokens")}
    columns |= {"nats": pa.array(-log_likelihoods[right])}
    columns |= {"log_likelihoods": pa.array([part.tolist() for part in np.split(log_likelihoods, starts[1:])])}
    columns |= {name: pa.array(found, pa.bool_()) for name, found in guesses.items()}
    return pa.table([columns[name] for name in ANSWERS_SCHEMA.names], names=ANSWERS_SCHEMA.names).cast(ANSWERS_SCHEMA)


def summarize_answers(answers: pa.Table) -> AnswersSummary:
    """Bits per byte and accuracies of a run's answers."""
    found = {}
    for name in ("right", "right_normed"):
        known = answers[name].drop_null().to_numpy()
        found[name] = float(known.mean()) if len(known) else None
    return AnswersSummary(
        bpb=bits_per_byte(answers["nats"].to_numpy(), answers["bytes"].to_numpy()),
        questions=len(answers),
        accuracy=found["right"],
        accuracy_normed=found["right_normed"],
    )


def as_scores(answers: pa.Table) -> pa.Table:
    """Answers as scores of documents: each question is one, without a rating, its task the source."""
    unrated = np.full(len(answers), math.nan)
    columns = {
        "document": answers["question"],
        "score": pa.array(unrated),
        "decile": pa.array(deciles(unrated)),
        "source": answers["task"],
    }
    same = {name: answers[name] for name in ("cluster", "bytes", "tokens", "nats")}
    return pa.table([(columns | same)[name] for name in SCHEMA.names], names=SCHEMA.names).cast(SCHEMA)


def write_choices(work: Work, choices: pa.Table) -> None:
    """Add `choices.parquet` to an artifact in the making."""
    _write(work, choices.cast(CHOICES_SCHEMA), CHOICES)


def write_answers(work: Work, answers: pa.Table) -> None:
    """Add `answers.parquet` to an artifact in the making."""
    _write(work, answers, ANSWERS)


def read_choices(path: Path) -> pa.Table:
    """The choices in a file. Raises DamagedError when another version of FabRating wrote them."""
    return _read(path, "encode the questions again")


def read_answers(path: Path) -> pa.Table:
    """The answers in a file. Raises DamagedError when another version of FabRating wrote them."""
    return _read(path, "score the run again")


def require_fit(asked: Artifact, sequence_length: int) -> None:
    """Raises InputError when a model cannot read the longest answer of encoded questions at once."""
    longest = asked.facts["longest_answer"]
    if longest > sequence_length:
        raise InputError(
            f"An answer of the questions {asked.path.name} has {longest:,} tokens, but a row of the model only {sequence_length:,}: shorten it, "
            "or train with a longer train.sequence_length."
        )


def _write(work: Work, table: pa.Table, name: str) -> None:
    pq.write_table(table, work.temporary(name), compression="zstd")
    work.finish(name, rows=table.num_rows)


def _read(path: Path, again: str) -> pa.Table:
    table = pq.read_table(path)
    found = (table.schema.metadata or {}).get(FORMAT_KEY, b"none").decode()
    if found != str(FORMAT):
        raise DamagedError(
            f"{path} has format {found}, this version of FabRating reads {FORMAT}: use the version that wrote it, or delete "
            f"{path.parent} and {again}."
        )
    return table
