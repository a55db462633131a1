"""What an arm takes, reads and needs, computed from the index alone before any text is read."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.arm.rates import DECODE_BYTES_PER_SECOND, ENCODE_BYTES_PER_SECOND, together
from tasks.corpus.arm.selection import Selection
from tasks.corpus.left_out import left_out_facts
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.scores import quantiles
from tasks.errors import InputError

RESERVE = 512 << 20
"""Bytes that a preparation leaves free on the disk."""

MOST_DOCUMENTS = 30_000_000
"""Documents of arms whose text is read together: some 60 bytes of memory each."""

COMPRESSED = 0.5
"""Bytes of a zstd-3 shard per byte of web text, rounded up: 0.35 to 0.45 were measured."""


@dataclass(frozen=True)
class ArmPlan:
    """An arm before it is made. Counts are exact; bytes are estimated from the footers.

    `population` counts the documents outside the holdout with the ratings that the arm asks for, which its filters let pass;
    `unrated_documents` those without the ratings, `filtered_documents` those that do not pass. The share is of the first. `documents` counts those whose texts turn out to be duplicates or in the holdout. Of a
    selection cut by score, `cut_off_documents` have the last score that is taken, and `cut_off_taken` of them are taken, drawn
    by seed. `tokens` sums the pool's own column (None without one). `bad_files` gives the reason for the first of the
    `bad_files_count` files that are left out, or whose documents lack a rating. `disk_bytes` is the peak of intermediate runs and shards together; `seconds` is
    expected on this machine's cores, without the time to read.
    """

    pool_id: str
    arm_id: str
    pool_documents: int
    holdout_documents: int
    population: int
    unrated_documents: int
    filtered_documents: int
    documents: int
    cut_off_score: float | None
    cut_off_documents: int | None
    cut_off_taken: int | None
    tokens: int | None
    text_bytes: int
    score_quantiles: dict[str, float]
    pool_score_quantiles: dict[str, float]
    files: int
    bad_files_count: int
    bad_files: Mapping[str, str]
    blobs_to_read: int
    bytes_to_read: int
    requests: int
    disk_bytes: int
    disk_free: int
    seconds: float
    reused: bool
    parts: Sequence[Mapping[str, Any]] = ()
    """What each part added, of an arm that mixes several selections; see `selection.PartTaken`."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def passes(plans: Sequence[ArmPlan]) -> list[list[int]]:
    """The numbers of the plans, in their order, divided into those whose text is read together.

    Those of a pass take at most half of the free disk, as the shards and rows of the passes before it need room too, and have at most
    MOST_DOCUMENTS; an arm that exceeds this has a pass of its own. One whose text is there needs nothing.
    """
    found: list[list[int]] = []
    disk = documents = 0
    for number, plan in enumerate(plans):
        needed, more = (0, 0) if plan.reused else (plan.disk_bytes, plan.documents)
        if not found or disk + needed > plan.disk_free // 2 or documents + more > MOST_DOCUMENTS:
            found.append([])
            disk = documents = 0
        found[-1].append(number)
        disk, documents = disk + needed, documents + more
    return found


def check_disk(arms: str, needed: int, folder: Path) -> None:
    """Raises InputError if the disk under `folder` lacks the `needed` bytes of arms (see `disk_bytes`), whose ids are listed in `arms`."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise InputError(
            f"Preparing {arms} needs {needed / 1e9:.1f} GB under {folder}, besides {RESERVE / 1e9:.1f} GB that stay free, and {free / 1e9:.1f} GB "
            "are free: make room, or choose another root."
        )


def disk_bytes(index: Index, order: np.ndarray) -> int:
    """Bytes of disk for an arm of the documents `order`, runs and shards together."""
    return _on_disk(_reading(index, order)[1])


def plan(
    pool_id: str,
    arm_id: str,
    index: Index,
    held: Mapping[str, Any],
    selection: Selection,
    pool_scores: np.ndarray,
    folder: Path,
    cores: int,
    reused: bool,
) -> ArmPlan:
    """The plan of an arm that takes the `selection`; `held` are the facts of the holdout, `pool_scores` those of all documents, which
    are put in another order."""
    order = selection.documents
    used, text_bytes = _reading(index, order)
    decoded = int(index.text_bytes[used].sum())
    tokens = None
    if index.tokens is not None:
        counts = index.tokens[order]
        tokens = int(counts[counts >= 0].sum(dtype=np.int64)) if (counts >= 0).any() else None
    return ArmPlan(
        pool_id=pool_id,
        arm_id=arm_id,
        pool_documents=index.documents,
        holdout_documents=held["documents"],
        documents=len(order),
        **selection.facts,
        tokens=tokens,
        text_bytes=text_bytes,
        score_quantiles=quantiles(selection.scores),
        pool_score_quantiles=quantiles(pool_scores[: index.documents], overwrite=True),
        files=len(index.blobs),
        **left_out_facts(held["bad_files"] | index.unrated | index.left_out),
        blobs_to_read=len(np.unique(index.file[used])),
        bytes_to_read=int((index.end[used] - index.start[used]).sum()),
        requests=int(used.sum()),
        disk_bytes=_on_disk(text_bytes),
        disk_free=shutil.disk_usage(folder).free,
        seconds=(decoded / DECODE_BYTES_PER_SECOND + text_bytes / ENCODE_BYTES_PER_SECOND) / together(cores),
        reused=reused,
    )


def _reading(index: Index, order: np.ndarray) -> tuple[np.ndarray, int]:
    """Which row groups hold some of the documents, bool (row groups,), and the bytes of the documents' text.

    The bytes of a row group are known; a document counts as the mean of its row group.
    """
    documents = np.sort(order)
    starts = index.group_first.astype(documents.dtype)  # of the same type, or NumPy would convert all documents
    bounds = np.searchsorted(documents, starts)
    chosen = np.diff(bounds)
    used = chosen > 0
    return used, int((index.text_bytes[used] * (chosen[used] / index.rows[used])).sum())


def _on_disk(text_bytes: int) -> int:
    return int(text_bytes * (1 + COMPRESSED))
