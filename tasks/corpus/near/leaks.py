"""Near copies of held-out documents in arms: found while the text of an arm passes by, or in the shards of one that is there.

A removed copy is in no arm of the pool; an arm that is already there has its own record for whatever is held out later: it is read
again, and nothing is trained anew.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.near.passages import Found, Passages
from tasks.corpus.parquet.shards import shard_name
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import local_workers
from tasks.progress import Progress, silent
from tasks.records.code import NEAR_VERSION
from tasks.records.layout import DOCUMENTS, ArmFolder, PoolFolder
from tasks.records.near import HOLDOUT, NearCopies
from tasks.store.artifact import Artifact, Manifest, Work
from tasks.store.root import Root

GATHERED_ROWS = 512
"""Documents of a shard that are searched at a time."""


def build_passages(root: Root, pool_id: str, share: float) -> Artifact:
    """`pools/<pool>/passages`: what is looked for in arms, of a holdout that is there."""
    held = root.open(PoolFolder(pool_id).holdout)

    def make(work: Work) -> None:
        found = Passages.of(_column(held.path / DOCUMENTS), share)
        found.write(work)
        work.facts.update(
            documents=len(found.sizes),
            unsearchable=found.unsearchable,
            passages=len(found.grams),
            boilerplate=int(found.common.sum()),
        )

    inputs = {"holdout": held.manifest}
    return root.build(PoolFolder(pool_id).passages, make, spec=_spec(share), inputs=inputs)


def place_of(root: Root, passages: Artifact, *, shared: bool) -> Scratch:
    """Where jobs find the passages: on this machine or, if they are `shared` with others, in the root."""
    if shared and root.remote is not None:
        return Scratch(passages.path, root.url, f"{passages.name}/")
    return Scratch(passages.path)


@lru_cache(maxsize=2)
def open_passages(place: Scratch, share: float) -> Passages:
    """The passages, read once for all jobs of a process."""
    return Passages.open(place, share)


def write_found(
    root: Root,
    arm_id: str,
    passages: Artifact,
    found: NearCopies | None,
    *,
    removed: bool,
    progress: Progress = silent,
) -> Artifact:
    """`arms/<arm>/near/<version>-holdout` from what the pass over its text `found`, or from its shards (None).

    `removed`: whether that pass left copies out; what is found in the shards is in the arm, whatever its pool asks for.
    """
    text = root.manifest(ArmFolder(arm_id).text)

    def make(work: Work) -> None:
        share = passages.manifest.spec["share"]
        known = open_passages(place_of(root, passages, shared=False), share)
        copies = scan(root, arm_id, [known], progress)[0] if found is None else found
        copies.write(work, len(known.sizes), known.unsearchable, removed=removed and found is not None)

    inputs = {"text": text, "passages": passages.manifest}
    return root.build(ArmFolder(arm_id).near(HOLDOUT), make, spec=dict(passages.manifest.spec), inputs=inputs)


@dataclass(frozen=True)
class Beside:
    """What is held out beside the holdout, by the name that its record has in an arm: `texts()`, and what they were made of, by role.

    Texts are numbered as they are given, which has to be the order in which they are scored.
    """

    what: str
    texts: Callable[[], Sequence[str]]
    made_from: Mapping[str, str | Manifest]


def count_leaks(
    root: Root, arm_id: str, wanted: Sequence[Beside], share: float, progress: Progress = silent
) -> list[Artifact]:
    """`arms/<arm>/near/<version>-<what>` of each: near copies in an arm that is there, whose shards are read once for all that are lacking."""
    text, folder = root.manifest(ArmFolder(arm_id).text), ArmFolder(arm_id)
    lacking = [each for each in wanted if root.find(folder.near(each.what)) is None]

    @cache
    def found() -> dict[str, tuple[Passages, NearCopies]]:
        known = [Passages.of([pa.array(each.texts(), pa.large_string())], share) for each in lacking]
        copies = scan(root, arm_id, known, progress)
        return {each.what: pair for each, pair in zip(lacking, zip(known, copies, strict=True), strict=True)}

    def make(each: Beside, work: Work) -> None:
        passages, copies = found()[each.what]
        copies.write(work, len(passages.sizes), passages.unsearchable, removed=False)

    return [
        root.build(
            folder.near(each.what), partial(make, each), spec=_spec(share), inputs={"text": text, **each.made_from}
        )
        for each in wanted
    ]


def scan(root: Root, arm_id: str, wanted: Sequence[Passages], progress: Progress = silent) -> list[NearCopies]:
    """Search the shards of an arm for each of the `wanted` passages."""
    text = root.open(ArmFolder(arm_id).text)
    shards = [text.path / shard_name(number) for number in range(text.facts["shards"])]
    rows = [pq.read_metadata(shard).num_rows for shard in shards]
    first = np.concatenate([[0], np.cumsum(rows)]).tolist()

    def one(number: int) -> list[Found]:
        parts: list[list[Found]] = [[] for _ in wanted]
        place = first[number]
        for texts in _column(shards[number]):
            for part, passages in zip(parts, wanted, strict=True):
                part.append(passages.find(texts).after(place))
            place += len(texts)
        return [Found.concat(part) for part in parts]

    shown: list[list[Found]] = []
    with ThreadPoolExecutor(local_workers().threads) as threads:
        for found in threads.map(one, range(len(shards))):
            shown.append(found)
            progress("near copies", len(shown), len(shards), {})
    whole = [Found.concat([found[i] for found in shown]) for i in range(len(wanted))]
    return [NearCopies.of(each.row, each.document, each.share) for each in whole]


def _column(file: Path) -> Iterator[pa.LargeStringArray]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(GATHERED_ROWS, columns=["text"]):
            yield batch.column(0).cast(pa.large_string())


def _spec(share: float) -> dict[str, float]:
    return {"share": share, "version": NEAR_VERSION}
