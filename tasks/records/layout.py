"""What lies under the root: the names of artifacts and of the files in them that more than one room knows.

    pools/<pool>/       columnar, index, columns/<column>, holdout, passages, strata/<score>, divisions/<column>, sample, tokenizer, evaluation,
                        outside/<texts>, questions/<set>
    arms/<arm>/         text, packed/<sequence length>-<packing>, near/<version>-<what is held out>
    runs/<run>/         .lease, run.json, job.json, metrics.jsonl, log.txt, checkpoints/step_<step>, result, scores/, outside/,
                        questions/, core, export/
    verdicts/<verdict>/ verdict.json, report.html
    verdicts/<name>/    registered.json, of all verdicts of that name
    ladders/<ladder>/   ladder.json, report.html

An artifact's name is readable and ends in a fingerprint of everything that determines its content. Names are relative to
the root: `Root.path`, `Root.find` and `Root.open` take them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tasks.records import code
from tasks.spec import Arm, Experiment, Pool, Score, Training
from tasks.store.artifact import fingerprint
from tasks.store.blobs import Blob
from tasks.store.root import Root

POOLS, ARMS, RUNS, VERDICTS, LADDERS = KINDS = ("pools", "arms", "runs", "verdicts", "ladders")
"""The folders below the root."""

DOCUMENTS = "documents.parquet"
"""In a holdout, an arm's text and an evaluation: one row a document."""
STRATA = "strata.parquet"
"""In strata: score and decile of each document of the holdout."""
DIVISION = "division.parquet"
"""In a division: a column's value for each document of the holdout."""
NEAR = "near.parquet"
"""Which held-out documents have near copies in an arm (see `near`)."""
SAMPLE = "sample.parquet"
TOKENIZER, TOKEN_BYTES = "tokenizer.json", "token_bytes.npy"
TOKENS = "tokens.bin"
"""In an evaluation: the tokens of its documents, one after another, uint16."""
CHOICES, ANSWERS = "choices.parquet", "answers.parquet"
"""Of encoded questions: one row a choice. Of a run's answers: one row a question (see `questions`)."""
ROWS, CONTENTS = "rows.bin", "contents.bin"
"""In a packed arm: rows of sequence length + 1 tokens, and what each holds (see `packed`)."""
SCORES, SUMMARY, SAMPLES = "scores.parquet", "summary.json", "samples.json"
METRICS, JOB, FAILURE, LOG, ENTRY = "metrics.jsonl", "job.json", "failure.json", "log.txt", "run.json"
WAITING = ".turn"
"""The lock file of the process that trains a run, or waits for a GPU to."""
FAILURE_BYTES = 16_384
"""Of `failure.json`, blank until there is one: a full disk has room for the reason."""
VERDICT, REPORT, REGISTERED, LADDER = "verdict.json", "report.html", "registered.json", "ladder.json"


@dataclass(frozen=True)
class PoolFolder:
    """Names of a pool's artifacts."""

    id: str

    @property
    def columnar(self) -> str:
        """The sources that are JSON lines, as Parquet; only of a pool that has such."""
        return f"{POOLS}/{self.id}/columnar"

    @property
    def index(self) -> str:
        return f"{POOLS}/{self.id}/index"

    def column(self, name: str, use: Literal["values", "ids"]) -> str:
        """A column of the index: its values, or what recognizes them as ids."""
        return f"{POOLS}/{self.id}/columns/{_readable(name)}-{fingerprint(name, use)}"

    @property
    def holdout(self) -> str:
        return f"{POOLS}/{self.id}/holdout"

    @property
    def passages(self) -> str:
        """Passages of the holdout, to be found in arms; by the version of the rule."""
        return f"{POOLS}/{self.id}/passages/{code.NEAR_VERSION}"

    def strata(self, score: Score) -> str:
        """The documents of the holdout by a score that is spelled out (`Arm.of`)."""
        return f"{POOLS}/{self.id}/strata/{fingerprint(score)}"

    def division(self, column: str) -> str:
        """What a column of the pool says of the holdout's documents."""
        return f"{POOLS}/{self.id}/divisions/{_readable(column)}-{fingerprint(column)}"

    @property
    def sample(self) -> str:
        return f"{POOLS}/{self.id}/sample"

    @property
    def tokenizer(self) -> str:
        return f"{POOLS}/{self.id}/tokenizer"

    @property
    def evaluation(self) -> str:
        return f"{POOLS}/{self.id}/evaluation"

    def outside(self, texts: str) -> str:
        """Encoded texts from elsewhere."""
        return f"{POOLS}/{self.id}/outside/{texts}"

    def questions(self, asked: str) -> str:
        """An encoded set of questions."""
        return f"{POOLS}/{self.id}/questions/{asked}"

    @property
    def parts(self) -> tuple[str, ...]:
        """What every pool has, in the order in which it is made."""
        return self.index, self.holdout, self.sample, self.tokenizer, self.evaluation

    def intermediate(self, part: str) -> str:
        """A hidden folder beside the artifacts, for what is deleted in the end."""
        return f"{POOLS}/{self.id}/.{part}"


@dataclass(frozen=True)
class ArmFolder:
    """Names of an arm's artifacts."""

    id: str

    @property
    def text(self) -> str:
        return f"{ARMS}/{self.id}/text"

    def packed(self, sequence_length: int, packing: str) -> str:
        return f"{ARMS}/{self.id}/packed/{sequence_length}-{packing}"

    def near(self, what: str) -> str:
        """Which documents of the holdout, or of texts from elsewhere by their name, have near copies in the arm."""
        return f"{ARMS}/{self.id}/near/{code.NEAR_VERSION}-{what}"

    def packings(self, root: Root) -> list[tuple[int, str]]:
        """Sequence length and way of packing of each packed form of the arm, rising."""
        found = (name.rsplit("/", 1)[1].partition("-") for name in root.names(f"{ARMS}/{self.id}/packed"))
        return sorted((int(length), packing) for length, _, packing in found if packing)

    def intermediate(self, part: str) -> str:
        """A hidden folder beside the artifacts, for what is deleted in the end."""
        return f"{ARMS}/{self.id}/.{part}"

    @classmethod
    def all(cls, root: Root) -> list[str]:
        """The ids of the arms whose text is complete."""
        return [name.split("/")[1] for name in root.names(ARMS) if name == cls(name.split("/")[1]).text]


@dataclass(frozen=True)
class RunFolder:
    """Names of a run's folder, its files and its artifacts."""

    id: str

    @property
    def folder(self) -> str:
        return f"{RUNS}/{self.id}"

    def file(self, name: str) -> str:
        """A file beside the artifacts, such as METRICS."""
        return f"{RUNS}/{self.id}/{name}"

    @property
    def lease(self) -> str:
        """Who may publish in this folder, of several hosts."""
        return f"{RUNS}/{self.id}/.lease"

    @property
    def result(self) -> str:
        return f"{RUNS}/{self.id}/result"

    @property
    def core(self) -> str:
        return f"{RUNS}/{self.id}/core"

    @property
    def checkpoints(self) -> str:
        """The folder of all checkpoints."""
        return f"{RUNS}/{self.id}/checkpoints"

    def checkpoint(self, step: int) -> str:
        return f"{RUNS}/{self.id}/checkpoints/step_{step:06d}"

    def scores(self, step: int) -> str:
        """Scores of a checkpoint, made without training."""
        return f"{RUNS}/{self.id}/scores/step_{step:06d}"

    def outside(self, texts: str) -> str:
        """Scores on texts from elsewhere."""
        return f"{RUNS}/{self.id}/outside/{texts}"

    def export(self, to: str) -> str:
        """The run for another program, by its kind of export."""
        return f"{RUNS}/{self.id}/export/{to}"

    def questions(self, asked: str) -> str:
        """Answers to a set of questions."""
        return f"{RUNS}/{self.id}/questions/{asked}"

    def beside(self, texts: Iterable[str], core: bool, questions: Iterable[str]) -> list[str]:
        """Scores on what is not the holdout: texts from elsewhere, questions and CORE."""
        asked = [self.questions(name) for name in questions]
        return [self.outside(name) for name in texts] + asked + ([self.core] if core else [])

    @classmethod
    def of(cls, name: str) -> "RunFolder":
        """The run that an artifact or a file belongs to, by its name."""
        return cls(name.split("/")[1])


@dataclass(frozen=True)
class VerdictFolder:
    """Name of a verdict's artifact; by the name alone, of the folder where its plan is registered."""

    id: str

    @property
    def name(self) -> str:
        return f"{VERDICTS}/{self.id}"

    @property
    def registered(self) -> str:
        """What was said before the first run, and the looks since."""
        return f"{VERDICTS}/{self.id}/{REGISTERED}"

    def hardware(self, training: Training, pool: str) -> str:
        """The hardware of the runs on this pool with this training, whatever their budget."""
        recipe = training.on(None).identity()
        return f"{VERDICTS}/{self.id}/hardware-{fingerprint(recipe, pool)}.json"

    @classmethod
    def all(cls, root: Root) -> list[str]:
        """The ids of the verdicts."""
        return [name.split("/")[1] for name in root.names(VERDICTS)]

    @classmethod
    def all_registered(cls, root: Root) -> list[str]:
        """The names of comparisons under which something is registered."""
        return [name.split("/")[1] for name in root.names(VERDICTS, REGISTERED)]


@dataclass(frozen=True)
class LadderFolder:
    """Name of a ladder's artifact."""

    id: str

    @property
    def name(self) -> str:
        return f"{LADDERS}/{self.id}"

    @classmethod
    def all(cls, root: Root) -> list[str]:
        """The ids of the ladders."""
        return [name.split("/")[1] for name in root.names(LADDERS)]


def _readable(column: str) -> str:
    """The part of a column's name that a file's name may have."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", column)[:40].strip("-")


def pool_id(pool: Pool, blobs: Iterable[Blob], version: int | None = None) -> str:
    """Name of a pool, by its parameters, its blobs with their ETags, and the version of the preparation (default: this one)."""
    read = [[blob.name, blob.size, blob.etag] for blob in blobs]
    return f"{pool.name}-{fingerprint(pool.identity(), read, version or code.PREPARATION_VERSION)}"


def arm_id(arm: Arm, pool: Pool, pool_id: str) -> str:
    """Name of an arm of a pool, whose id stands for the version of the preparation too."""
    return f"{arm.name}-{fingerprint(arm.of(pool).identity(), pool_id)}"


def run_id(experiment: Experiment, arm: str) -> str:
    """Name of the training run of an experiment on the arm with id `arm`, by this version of the training."""
    recipe = fingerprint(experiment.identity(), arm, code.TRAINING_VERSION)
    return f"{experiment.arm.name}-d{experiment.training.depth}-s{experiment.seed}-{recipe}"
