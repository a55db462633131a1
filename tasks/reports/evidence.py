"""What a report shows beside numbers: what an arm took, what only it took, what a run wrote, where everything comes from.

A report must be possible on a machine without the runs: only the files that are shown are fetched from the remote store, and an
artifact that is missing everywhere is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.layout import DOCUMENTS, METRICS, SAMPLES, STRATA, ArmFolder, PoolFolder, RunFolder
from tasks.records.ledger import LedgerEntry, Measured
from tasks.records.result import Sample, read_samples
from tasks.records.scores import strata_scores
from tasks.store.artifact import FileRecord, Manifest, read_manifest
from tasks.store.root import Root

EXAMPLES = 3
"""Documents that are shown of those that only one arm took."""
SHOWN = 700
"""Characters of each."""


@dataclass(frozen=True)
class Run:
    """One run as far as it has come: its result's manifest and its ledger entry, either of which may be missing.

    `spec`: the experiment's parameters. `arm`, `pool`: names of what it trained on.
    """

    root: Root
    name: str
    result: Manifest | None
    entry: LedgerEntry | None
    measured: Measured
    spec: Mapping[str, Any]
    arm: str
    pool: str

    @classmethod
    def find(cls, root: Root, name: str) -> "Run":
        """Raises InputError when neither the ledger nor a result knows the run."""
        result, entry = root.find(RunFolder(name).result), ledger.find(root, name)
        if result is not None:
            arm, pool = result.inputs["arm"], result.inputs["pool"]
            return cls(root, name, result, entry, Measured.of(result.facts), result.spec, arm, pool)
        if entry is not None:
            spec = entry.experiment.model_dump(mode="json")
            return cls(root, name, None, entry, entry, spec, entry.arm_id, entry.pool_id)
        raise InputError(f"There is no run {name!r} under {root.url}: `fabrating runs` lists those there are.")

    @property
    def score(self) -> Any:
        """What the documents of its arm are ranked by; None or empty if by nothing."""
        return self.spec.get("arm", {}).get("score")

    @property
    def hours(self) -> float | None:
        """Wall time: of all attempts as the ledger knows it, else of the one that finished."""
        if self.entry is not None:
            return self.entry.hours
        seconds = self.measured.wall_seconds
        return None if seconds is None else seconds / 3600

    @cached_property
    def metrics(self) -> Path:
        """The metrics file, which may not exist yet."""
        if self.result is not None:
            return self.root.file(RunFolder(self.name).result, METRICS)
        return self.root.path(RunFolder(self.name).file(METRICS))

    @cached_property
    def samples(self) -> list[Sample]:
        """What the model wrote."""
        if self.result is None or not any(record.path == SAMPLES for record in self.result.files):
            return []
        return read_samples(self.root.file(RunFolder(self.name).result, SAMPLES))


@dataclass(frozen=True)
class Document:
    """A document that an arm took: its place in training order, where it lies, its score, its text's beginning."""

    rank: int
    blob: str
    row: int
    score: float | None
    text: str


class Taken:
    """What an arm took, in training order."""

    def __init__(self, root: Root, arm: str):
        self.root, self.name = root, ArmFolder(arm).text
        self.manifest = root.find(self.name)

    def __bool__(self) -> bool:
        return self.manifest is not None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was counted, {} if the arm is not at hand."""
        return self.manifest.facts if self.manifest is not None else {}

    @cached_property
    def table(self) -> pa.Table:
        """Columns blob, row, score."""
        path = self.root.file(self.name, DOCUMENTS)
        return pq.read_table(path, columns=["blob", "row", "score"], read_dictionary=["blob"])

    @property
    def scores(self) -> np.ndarray:
        """(documents,), NaN without a rating."""
        return np.asarray(self.table["score"].to_numpy(), dtype=float)

    def keys(self, blobs: dict[str, int]) -> np.ndarray:
        """One int64 a document; `blobs` numbers the blobs and grows, so that two arms can be compared."""
        found = self.table["blob"].combine_chunks()
        found = found if isinstance(found, pa.DictionaryArray) else found.dictionary_encode()
        numbers = [blobs.setdefault(name, len(blobs)) for name in found.dictionary.to_pylist()]
        blob = np.array(numbers, dtype=np.int64)[found.indices.to_numpy()]
        return np.asarray((blob << 40) | self.table["row"].to_numpy())

    def spread(self, places: np.ndarray, count: int) -> np.ndarray:
        """`count` of the places, evenly spread; of a remote arm all from one shard, the middle one, to fetch no more."""
        if self.root.remote is not None and read_manifest(self.root.path(self.name)) is None and len(places):
            bounds = self._bounds()
            shard = int(np.searchsorted(bounds, places[len(places) // 2], side="right")) - 1
            places = places[(places >= bounds[shard]) & (places < bounds[shard + 1])]
        return np.asarray(places[np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)])

    def _shards(self) -> list[FileRecord]:
        """Records of the text shards, without the holdout's, which is the last."""
        files = self.manifest.files if self.manifest is not None else ()
        return sorted((r for r in files if r.path.startswith("shard_")), key=lambda r: r.path)[:-1]

    def _bounds(self) -> np.ndarray:
        return np.cumsum([0, *(record.rows for record in self._shards())])

    def document(self, position: int) -> Document:
        """The document at this place of the training order, with the beginning of its text."""
        bounds = self._bounds()
        shard = int(np.searchsorted(bounds, position, side="right")) - 1
        text = _row(self.root.file(self.name, self._shards()[shard].path), position - int(bounds[shard]))
        place = {name: self.table[name][position].as_py() for name in ("blob", "row", "score")}
        place["score"] = None if place["score"] is None or np.isnan(place["score"]) else place["score"]
        return Document(position, text=text[:SHOWN] + ("…" if len(text) > SHOWN else ""), **place)


def only_in(ours: Taken, theirs: Taken) -> tuple[int, list[Document]]:
    """How many documents only the first arm took, and some of them, spread over its training order."""
    blobs: dict[str, int] = {}
    alone = np.flatnonzero(~np.isin(ours.keys(blobs), theirs.keys(blobs)))
    return len(alone), [ours.document(int(position)) for position in ours.spread(alone, EXAMPLES)]


def holdout_scores(run: Run) -> np.ndarray:
    """Scores of the holdout's documents by the arm's score: those of the pool as a whole, by a random sample. Empty if not at hand."""
    if not run.score or run.root.find(name := PoolFolder(run.pool).strata(run.score)) is None:
        return np.array([])
    return strata_scores(run.root.file(name, STRATA))


@dataclass(frozen=True)
class Link:
    """One artifact of a lineage. `made_from`: {role: name of an artifact of the same lineage, or else a fingerprint}."""

    name: str
    manifest: Manifest
    made_from: Mapping[str, str]

    @property
    def kind(self) -> str:
        """pool, arm or run."""
        return self.name.split("/")[0].removesuffix("s")

    @property
    def blobs(self) -> list[str]:
        """Where the blobs of a pool lie: its sources, and the holdout's own place."""
        spec = self.manifest.spec
        named = [f"{name}: {url}" for name, url in (spec.get("sources") or {}).items()]
        return [url for url in (*named, spec.get("source"), spec.get("holdout")) if url]


def lineage(
    root: Root,
    runs: Sequence[Run],
    outside: Sequence[str] = (),
    core: bool = False,
    questions: Sequence[str] = (),
) -> list[Link]:
    """Every artifact between the blobs and these runs' results, the pool's first; those not at hand are left out.

    `outside`, `core`, `questions`: what the runs were scored on beside the holdout, as `judge` takes them.
    """
    names: list[str] = []
    for run in runs:
        names += PoolFolder(run.pool).parts
        names += [PoolFolder(run.pool).outside(texts) for texts in outside]
        names += [PoolFolder(run.pool).questions(asked) for asked in questions]
    for run in runs:
        training = run.spec["training"]
        names += [
            ArmFolder(run.arm).text,
            ArmFolder(run.arm).packed(training["sequence_length"], training.get("packing", "crop")),
        ]
    for run in runs:
        names += [RunFolder(run.name).result, *RunFolder(run.name).beside(outside, core, questions)]
    found = {name: manifest for name in names if (manifest := root.find(name)) is not None}
    by_fingerprint = {manifest.fingerprint: name for name, manifest in found.items()}
    return [
        Link(name, manifest, {role: by_fingerprint.get(given, given) for role, given in manifest.inputs.items()})
        for name, manifest in found.items()
    ]


def _row(shard: Path, row: int) -> str:
    """One text of a shard; reads its row group alone."""
    file = pq.ParquetFile(shard)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row < rows:
            return str(file.read_row_group(group, columns=["text"])["text"][row].as_py())
        row -= rows
    raise InputError(f"{shard} has fewer rows than its manifest says: verify the arm.")
