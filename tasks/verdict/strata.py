"""The scores of all runs, summed by stratum and cluster of the documents they were scored on: what the statistics work on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DamagedError, InputError
from tasks.records.layout import DOCUMENTS, SCORES, STRATA, PoolFolder
from tasks.records.scores import DECILES, read_scores, with_strata
from tasks.records.verdict import Kind, Target
from tasks.spec import Score
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.verdict.divided import Parts
from tasks.verdict.paired import FEWEST_CLUSTERS, cluster_sums
from tasks.verdict.taken import Chances, disagreements
from tasks.verdict.target import HALVES, TARGETS

LENGTHS = (1_000, 2_000, 4_000, 8_000, 16_000)  # bytes: bounds of the length classes
SOURCES = 20  # the largest ones get a row each


@dataclass(frozen=True)
class Grouping:
    """One way to divide documents: `codes`, (documents,), are places in `labels`, or -1."""

    kind: Kind
    codes: np.ndarray
    labels: list[str]
    pair: tuple[str, str] | None = None
    """The arms that it is about, if not all."""
    column: str | None = None
    """Of the pool, that it is by."""


def require_enough(count: int, what: str) -> None:
    """Raises InputError when `count` documents or questions are too few for a verdict; `what` says what they are."""
    if count < FEWEST_CLUSTERS:
        raise InputError(f"There are {count} {what}: a verdict needs at least {FEWEST_CLUSTERS}, better 1,000.")


@dataclass(frozen=True)
class ScoredDocuments:
    """What all runs were scored on: columns of (documents,), clusters numbered from 0."""

    document: np.ndarray
    cluster: np.ndarray
    clusters: int
    blocks: bool
    """Whether clusters are blocks of neighbouring rows, or single documents for want of blocks."""
    bytes: np.ndarray
    score: np.ndarray
    decile: np.ndarray
    source: np.ndarray
    near: np.ndarray
    """Whether an arm has a near copy."""

    @classmethod
    def of(cls, table: pa.Table, what: str, leaked: np.ndarray | None = None) -> "ScoredDocuments":
        """The documents of one run's scores. Raises InputError when they are too few for a verdict; `what` names them.

        `leaked`: numbers of documents that have a near copy in an arm.
        """
        blocks, cluster = np.unique(table["cluster"].to_numpy(), return_inverse=True)
        require_enough(table.num_rows, what)
        enough = len(blocks) >= FEWEST_CLUSTERS
        return cls(
            document=table["document"].to_numpy(),
            cluster=cluster if enough else np.arange(table.num_rows),
            clusters=len(blocks) if enough else table.num_rows,
            blocks=enough,
            bytes=table["bytes"].to_numpy(),
            score=table["score"].to_numpy(),
            decile=table["decile"].to_numpy(),
            source=table["source"].to_numpy(zero_copy_only=False).astype(str),
            near=np.isin(table["document"].to_numpy(), [] if leaked is None else leaked),
        )

    def inside(self, target: Target) -> np.ndarray:
        """Which of the documents decide, bool (documents,): those of a half of the holdout, else all."""
        if target not in HALVES:
            return np.ones(len(self.document), bool)
        return np.isin(self.decile, np.arange(DECILES)[TARGETS[target]])

    def require_half(self, target: Target) -> None:
        """Raises InputError when too few documents are in a half of the holdout by score that is to decide: no seeds would tell arms apart."""
        inside = self.inside(target)
        if (count := len(np.unique(self.cluster[inside]))) < FEWEST_CLUSTERS:
            raise InputError(
                f"The target is {target!r}, but of the holdout's documents {int(inside.sum()):,} of {count} blocks are in it, as equal scores stay "
                f"together: a verdict needs at least {FEWEST_CLUSTERS} blocks. Set it to all, or take a larger holdout."
            )

    def same_as(self, other: "ScoredDocuments") -> bool:
        return np.array_equal(self.document, other.document) and np.array_equal(self.bytes, other.bytes)

    def groupings(self) -> list[Grouping]:
        """All but those by arms and by columns. A document without a rating is in no half and no decile."""
        lengths = [f"{low // 1000} to {high // 1000} kB" for low, high in pairwise([0, *LENGTHS])]
        found, codes, counts = np.unique(self.source, return_inverse=True, return_counts=True)
        largest = np.argsort(-counts, kind="stable")[:SOURCES]
        place = np.full(len(found), len(largest))
        place[largest] = np.arange(len(largest))
        sources = [str(found[i]) or "(no source)" for i in largest] + ["all others"] * (len(found) > SOURCES)
        near = Grouping("near", self.near.astype(np.int64), ["without a near copy", "with a near copy in an arm"])
        by_length = np.searchsorted(LENGTHS, self.bytes, side="right")
        return [
            *self._targets(),
            Grouping("decile", self.decile.astype(np.int64), [f"decile {i + 1}" for i in range(DECILES)]),
            Grouping("length", by_length, [*lengths, f"above {LENGTHS[-1] // 1000} kB"]),
            Grouping("source", place[codes], sources),
            *([near] if self.near.any() else []),
        ]

    def _targets(self) -> list[Grouping]:
        half = self.decile.astype(np.int64) * 2 // DECILES
        return [
            Grouping("all", np.zeros(len(self.document), dtype=np.int64), ["all documents"]),
            Grouping("half", half, ["worse-rated half", "better-rated half"]),
        ]

    def clean(self) -> list[Grouping]:
        """The targets on the holdout, in their order, without the documents that have near copies."""
        return [replace(each, codes=np.where(self.near, -1, each.codes)) for each in self._targets()]


@dataclass(frozen=True)
class Stratum:
    """A part of the documents: all, or by score (halves, deciles), length, source, near copies, the arm that would take them, or a column."""

    kind: Kind
    label: str
    documents: int
    bytes: int
    pair: tuple[str, str] | None = None
    """The arms that it is about, if not all."""
    column: str | None = None
    """Of the pool, that it is by."""


@dataclass(frozen=True)
class StratumSums:
    """Sums over the documents of each stratum and cluster: bytes (S, C), and nats (seeds, S, C) per arm."""

    strata: list[Stratum]
    sizes: np.ndarray
    nats: dict[str, np.ndarray]
    clean: "StratumSums | None" = None
    """The targets without documents that have near copies, if any have."""

    def about(self, a: str, b: str) -> "StratumSums":
        """Without the strata of other pairs of arms."""
        return self._only([stratum.pair in (None, (a, b)) for stratum in self.strata])

    def always_there(self) -> "StratumSums":
        """Without the strata by columns that were asked for, which are the last."""
        return self._only([stratum.column is None for stratum in self.strata])

    def _only(self, wanted: Sequence[bool]) -> "StratumSums":
        if all(wanted):
            return self
        kept = np.flatnonzero(wanted).tolist()
        nats = {label: values[:, kept] for label, values in self.nats.items()}
        return replace(self, strata=[self.strata[i] for i in kept], sizes=self.sizes[kept], nats=nats)


def find_strata(
    root: Root, results: Mapping[str, Sequence[Artifact]], strata_by: Score | None
) -> tuple[Score | None, Artifact | None]:
    """The score that the holdout is divided by, and the strata by it; (score, None) where every run recorded them so.

    Without `strata_by` it is the score that the arms were selected by. Raises InputError when they have several.
    """
    specs = {label: [run.manifest.spec.get("arm", {}).get("score") for run in runs] for label, runs in results.items()}
    known = {json.dumps(score, sort_keys=True): score for scores in specs.values() for score in scores}
    if strata_by is None:
        given = {label: scores[0] for label, scores in specs.items() if scores[0]}
        if len(distinct := {json.dumps(score, sort_keys=True) for score in given.values()}) > 1:
            listed = "; ".join(f"{label}: {score}" for label, score in given.items())
            raise InputError(
                f"The arms are selected by different scores ({listed}): name the one that the holdout is divided by (strata_by)."
            )
        strata_by = known[distinct.pop()] if distinct else None
    if strata_by is None or list(known.values()) == [strata_by]:
        return strata_by, None
    pool = next(iter(results.values()))[0].manifest.inputs["pool"]
    return strata_by, root.open(PoolFolder(pool).strata(strata_by))


def require_half(root: Root, pool: str, score: Score, target: Target) -> None:
    """The same of a pool's holdout, before anything is scored."""
    held = pq.read_table(
        root.file(PoolFolder(pool).holdout, DOCUMENTS), columns=["document", "cluster", "bytes", "source"]
    )
    strata = root.file(PoolFolder(pool).strata(score), STRATA)
    ScoredDocuments.of(with_strata(held, strata), "documents of the holdout").require_half(target)


def score_used(root: Root, pool: str, score: Score | None) -> Score | None:
    """The score as the strata of a pool were made by it: a prebuilt subset may have another column, or none."""
    found = root.find(PoolFolder(pool).strata(score)) if score else None
    return (found.facts.get("score") or None) if found else score


def sum_scores(
    results: Mapping[str, Sequence[Artifact]],
    what: str = "documents of the holdout",
    strata: Artifact | None = None,
    leaked: np.ndarray | None = None,
    taken: Chances = MappingProxyType({}),
    divided: Mapping[str, Parts] = MappingProxyType({}),
    read: Callable[[Artifact], pa.Table] = lambda run: read_scores(run.path / SCORES),
) -> tuple[ScoredDocuments, StratumSums]:
    """Read the scores of every run, {arm: runs}, and sum them; by other `strata` than those that the runs recorded.

    `leaked`: numbers of documents that have a near copy in an arm. `taken`: which documents the arms would take, for strata of
    those on which two arms disagree. `divided`: parts of the documents by columns of the pool. `read`: the scores in an artifact.

    Raises InputError when runs were scored on different documents, DamagedError when a score is not a number or a division is of
    other documents.
    """
    documents: ScoredDocuments | None = None
    nats: dict[str, list[np.ndarray]] = {label: [] for label in results}
    for label, runs in results.items():
        for run in runs:
            table = read(run).sort_by("document")
            if strata is not None:
                table = with_strata(table.drop_columns(["score", "decile"]), strata.path / STRATA)
            values = table["nats"].to_numpy()
            if bad := int((~np.isfinite(values)).sum()):
                raise DamagedError(f"{run.name} has {bad:,} scores that are not numbers: score the run again.")
            found = ScoredDocuments.of(table, what, leaked)
            if documents is not None and not documents.same_as(found):
                raise InputError(
                    f"{run.name} was scored on other documents than the runs before it: score it on the same."
                )
            documents = documents or found
            nats[label].append(values)
    if documents is None:
        raise InputError("There are no runs to read scores of: name at least one.")
    stacked = {label: np.stack(values) for label, values in nats.items()}
    groupings = documents.groupings()
    groupings += [Grouping("taken", codes, labels, pair) for pair, codes, labels in disagreements(taken)]
    for column, (codes, labels) in divided.items():
        if len(codes) != len(documents.document):
            raise DamagedError(
                f"The pool's division by {column} has {len(codes):,} documents, the scores {len(documents.document):,}: delete it and "
                "judge again."
            )
        groupings.append(Grouping("column", codes, labels, column=column))
    clean = _summed(documents, stacked, documents.clean()) if documents.near.any() else None
    return documents, replace(_summed(documents, stacked, groupings), clean=clean)


def _summed(documents: ScoredDocuments, nats: Mapping[str, np.ndarray], groupings: Sequence[Grouping]) -> StratumSums:
    strata: list[Stratum] = []
    sizes: list[np.ndarray] = []
    sums: dict[str, list[np.ndarray]] = {label: [] for label in nats}
    for each in groupings:
        codes, shape = each.codes, (len(each.labels), documents.clusters)
        size = cluster_sums(documents.bytes.astype(float), codes, documents.cluster, shape)
        counts = np.bincount(codes[codes >= 0], minlength=len(each.labels)).tolist()
        rows = zip(each.labels, counts, size.sum(1).astype(int).tolist(), strict=True)
        strata += [Stratum(each.kind, *row, each.pair, each.column) for row in rows]
        sizes.append(size)
        for label, values in nats.items():
            sums[label].append(cluster_sums(values, codes, documents.cluster, shape))
    joined = {label: np.concatenate(parts, axis=1) for label, parts in sums.items()}
    return StratumSums(strata, np.concatenate(sizes), joined)
