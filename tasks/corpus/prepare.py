"""Blobs -> pool -> arm: the steps of preparation, each an artifact that is skipped if complete and resumed if partial.

pool.handle       list the sources; the name of the pool follows from its parameters and the ETags of its blobs
set_damaged_aside compare what earlier attempts completed with its checksums
columnar          pools/<pool>/columnar    JSON lines as Parquet, if the pool has such
build_index       pools/<pool>/index       footers; and columns/<column>, those that are asked for and lacking
build_holdout     pools/<pool>/holdout     documents for evaluation
build_strata      pools/<pool>/strata      their scores and deciles, by one score
build_sample      pools/<pool>/sample      text for the tokenizer
plan_arm          what an arm would take, read and need, before any text moves
build_arms        arms/<arm>/text, near    shards of several arms in one pass over the text, near copies of the holdout in each

Each builds what it needs and does not find. `flows.sequence` calls them in order.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import numpy as np

from tasks.corpus.arm import scatter
from tasks.corpus.arm.listed import IdList
from tasks.corpus.arm.parts import NONE, mix
from tasks.corpus.arm.plan import ArmPlan, check_disk, disk_bytes, plan
from tasks.corpus.arm.selection import Selection, check_subset, select
from tasks.corpus.arm.text import write_arm
from tasks.corpus.arm.traits import Traits, score_columns, score_there, traits_of, wanted_columns
from tasks.corpus.heap import drop_pages, released
from tasks.corpus.lines import is_lines
from tasks.corpus.near.leaks import build_passages, place_of, write_found
from tasks.corpus.parquet.shards import RANKS
from tasks.corpus.pool import holdout, index, sample
from tasks.corpus.pool.asked import require_asked
from tasks.corpus.pool.column import StoredColumn, Wanted, open_ids
from tasks.corpus.pool.columnar import columnar, has_lines
from tasks.corpus.pool.entries import UNKNOWN, find_parts
from tasks.corpus.pool.handle import PoolHandle, open_pool
from tasks.corpus.pool.holdout import HeldOut
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.scores import quantiles, scores_of
from tasks.corpus.pool.sources import address
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Count, Workers, local_workers, of_batch
from tasks.errors import InputError
from tasks.expression import require_columns
from tasks.progress import Progress, silent
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.records.near import NearCopies
from tasks.records.scores import write_strata
from tasks.spec import Arm, Pool, Score
from tasks.store.artifact import Artifact, Work
from tasks.store.locks import locked
from tasks.store.root import Root


def set_damaged_aside(root: Root, pool: Pool | PoolHandle, arms: Sequence[Arm]) -> None:
    """Compare every file of the pool and of the arms' texts with its checksum: a damaged artifact is set aside and made again."""
    handle = open_pool(root, pool)
    folder = PoolFolder(handle.pool_id)
    columns = [folder.column(wanted.name, wanted.use) for arm in arms for wanted in wanted_columns(arm, handle.pool)]
    strata = [folder.strata(arm.of(handle.pool).score or {}) for arm in arms]
    texts = [handle.arm(arm).text for arm in arms]
    whole = (
        [] if all(map(root.find, texts)) else [folder.columnar]
    )  # as large as the corpus, and not needed once the texts are there
    for name in dict.fromkeys([*whole, *folder.parts, *columns, *strata, *texts]):
        root.intact(name)


def build_index(
    root: Root,
    pool: Pool | PoolHandle,
    columns: Sequence[Wanted] = (),
    *,
    workers: int | None = None,
    mapper: Workers | None = None,
    progress: Progress = silent,
) -> Artifact:
    """The index of the pool, and those of the `columns` that it lacks: all of it in one reading, later ones by themselves.

    Raises InputError naming files that cannot be used and columns that no file has, ChangedError when a blob changes. Of a prebuilt
    pool, columns of a score are read where they exist.
    """
    handle = open_pool(root, pool)
    folder = PoolFolder(handle.pool_id)
    mapper = mapper or local_workers(workers)
    with locked(root.path(f".locks/{handle.pool_id}.index.lock")):
        found = root.find(folder.index)
        columns = _there(handle, columns, found.facts["columns"]) if found else columns
        lacking = [wanted for wanted in columns if root.find(folder.column(wanted.name, wanted.use)) is None]
        scratch, retries = None, 0
        read = root.find(folder.columnar) if has_lines(handle) else None
        if found is None or lacking or (read is None and has_lines(handle)):
            mapper.get_ready()
            scratch = Scratch.open(root, folder.intermediate("index"), shared=mapper.shared)
            near = _at_hand(root, handle, workers, progress, mapper.shared)
            read = near.columnar
            opened = Index(root.open(folder.index).path) if found else None
            with released():
                if found is None:
                    require_asked(near, columns)
                retries = index.read(near, opened, lacking, scratch, mapper, progress)

        def make(work: Work) -> None:
            with released():
                index.join(work, handle.pool, handle.blobs, scratch, retries)

        inputs = {"pool": handle.pool_id} | ({"columnar": read} if read else {})
        indexed = root.build(folder.index, make, spec=handle.pool.identity(), inputs=inputs)
        opened = Index(indexed.path)

        def build_column(wanted: Wanted) -> None:
            root.build(
                folder.column(wanted.name, wanted.use),
                lambda work: index.join_column(work, handle.pool, opened, wanted, scratch, places),
                spec={"name": wanted.name, "use": wanted.use},
                inputs={"index": indexed.manifest},
            )

        with released(), ThreadPoolExecutor(local_workers(workers).threads) as threads:
            places = find_parts(scratch) if scratch is not None else {}
            list(threads.map(build_column, _there(handle, lacking, indexed.facts["columns"])))
        if scratch is not None:
            scratch.clear()
    return indexed


def _at_hand(
    root: Root, handle: PoolHandle, workers: int | None, progress: Progress, shared: bool = False
) -> PoolHandle:
    """The pool as it is read: from where its blobs lie, or from what was copied or made of them."""
    made = root.find(PoolFolder(handle.pool_id).columnar) and all(is_lines(blob.name) for blob in handle.blobs)
    near = handle if made else handle.at_hand(root)  # nothing is left to read of the blobs
    return columnar(root, near, local_workers(workers).count, shared=shared, progress=progress)


def _there(handle: PoolHandle, columns: Sequence[Wanted], known: Sequence[str]) -> list[Wanted]:
    """Those of the `columns` that are among the `known` ones, which others must be."""
    needed = [wanted.name for wanted in columns if wanted.may_lack != "all"]
    require_columns(f"An arm of the pool {handle.pool.name}", needed, known, handle.pool.address)
    return [wanted for wanted in columns if wanted.name in known]


def build_holdout(
    root: Root, pool: Pool | PoolHandle, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """The pool's holdout, and its index if need be."""
    handle = open_pool(root, pool)
    indexed = build_index(root, handle, workers=workers, progress=progress)

    def make(work: Work) -> None:
        near = _at_hand(root, handle, workers, progress)
        opened = open_index(root, near, indexed)
        with released():
            holdout.build(work, near.pool, near.source(), opened, local_workers(workers).threads, progress)

    name = PoolFolder(handle.pool_id).holdout
    return root.build(name, make, spec=handle.pool.identity(), inputs={"index": indexed.manifest})


def build_sample(
    root: Root, pool: Pool | PoolHandle, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """The pool's sample for the tokenizer, and its index and holdout if need be."""
    handle = open_pool(root, pool)
    held = build_holdout(root, handle, workers=workers, progress=progress)

    def make(work: Work) -> None:
        near = _at_hand(root, handle, workers, progress)
        opened = open_index(root, near, build_index(root, handle))
        threads = local_workers(workers).threads
        sample.build(work, near.pool, near.source(), opened, HeldOut(held, opened), threads, progress)

    name = PoolFolder(handle.pool_id).sample
    return root.build(name, make, spec=handle.pool.identity(), inputs={"holdout": held.manifest})


def build_strata(
    root: Root, pool: Pool | PoolHandle, score: Score, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """Score and decile of each document of the holdout, in its order, by a score that is spelled out (`Arm.of`)."""
    handle = open_pool(root, pool)
    held = build_holdout(root, handle, workers=workers, progress=progress)
    wanted = score_columns(score, handle.pool)
    indexed = build_index(root, handle, wanted, workers=workers, progress=progress)

    def make(work: Work) -> None:
        opened = open_index(root, handle, indexed, wanted)
        used = score_there(opened, score, handle.pool)
        scores = scores_of(opened.columns, used, len(opened))
        scores = scores[HeldOut(held, opened).numbers]
        write_strata(work, scores)
        work.facts.update(score=used, scores=quantiles(scores), unrated_documents=int(np.isnan(scores).sum()))

    inputs = {"holdout": held.manifest, "index": indexed.manifest}
    return root.build(PoolFolder(handle.pool_id).strata(score), make, spec={"score": score}, inputs=inputs)


def plan_arm(root: Root, pool: Pool | PoolHandle, arm: Arm, *, workers: int | None = None) -> ArmPlan:
    """What the arm takes, reads and needs. Builds index and holdout if need be.

    Raises InputError when the pool cannot serve the arm, or when the disk is too small for it.
    """
    handle = open_pool(root, pool)
    wanted = wanted_columns(arm, handle.pool)
    indexed = build_index(root, handle, wanted, workers=workers)
    held = build_holdout(root, handle, workers=workers)
    opened = open_index(root, handle, indexed, wanted)
    listed = IdList.of(arm) if arm.ids else None
    traits = _traits(root, handle, arm, opened, listed)
    selection = _select(handle, arm, opened, traits, HeldOut(held, opened))
    folder = handle.arm(arm)
    reused = root.find(folder.text) is not None
    made = plan(
        handle.pool_id,
        folder.id,
        opened,
        held.facts,
        selection,
        traits.scores,
        root.folder,
        local_workers(workers).count,
        reused,
    )
    if not reused:
        check_disk(folder.id, made.disk_bytes, root.folder)
    return made


def build_arms(
    root: Root,
    pool: Pool | PoolHandle,
    arms: Sequence[Arm],
    *,
    workers: int | None = None,
    mapper: Workers | None = None,
    progress: Progress = silent,
) -> list[Artifact]:
    """The text of several arms of one pool, in a single pass over the pool's text for all that are not complete.

    Memory is bounded by a piece of a blob and a bucket of shards per worker, plus some 60 bytes a document. Raises
    InputError; ChangedError when a blob is no longer the indexed one.
    """
    if not arms:
        raise InputError("No arm is given: name at least one.")
    handle = open_pool(root, pool)
    mapper = mapper or local_workers(workers)
    wanted = list(dict.fromkeys(each for arm in arms for each in wanted_columns(arm, handle.pool)))
    build_index(root, handle, wanted, workers=workers, mapper=mapper, progress=progress)
    held = build_holdout(root, handle, workers=workers, progress=progress)
    by_id = {handle.arm(arm).id: arm.of(handle.pool) for arm in arms}
    lists = {id: IdList.of(arm) for id, arm in by_id.items() if arm.ids}
    with ExitStack() as stack:
        for id in sorted(by_id):
            stack.enter_context(locked(root.path(f".locks/pass.{ArmFolder(id).text.replace('/', '.')}.lock")))
        missing = {id: arm for id, arm in by_id.items() if root.find(ArmFolder(id).text) is None}
        passages = build_passages(root, handle.pool_id, handle.pool.holdout_near)
        found: dict[str, NearCopies] = {}
        makers = _scatter(root, handle, missing, lists, held, passages, found, mapper, progress) if missing else {}
        made = [
            root.build(
                ArmFolder(id).text,
                makers.get(id, _unreachable),
                spec=by_id[id].identity(),
                inputs={"pool": handle.pool_id, "holdout": held.manifest}
                | ({"ids": lists[id].sha256} if id in lists else {}),
            )
            for id in (handle.arm(arm).id for arm in arms)
        ]
        for id in by_id:
            removed = handle.pool.near == "remove"
            write_found(root, id, passages, found.get(id), removed=removed, progress=progress)
        return made


def _unreachable(work: Work) -> None:
    raise AssertionError(f"{work.path} was complete a moment ago")


def open_index(root: Root, handle: PoolHandle, indexed: Artifact, columns: Sequence[Wanted] = ()) -> Index:
    """The index with these columns. Raises InputError when files lack one, unless they may be skipped."""
    stored, unrated = {}, {}
    for wanted in _there(handle, columns, indexed.facts["columns"]):
        column = root.open(PoolFolder(handle.pool_id).column(wanted.name, wanted.use))
        lacking = column.facts["bad_files"]
        if lacking and wanted.may_lack == "none":
            count = column.facts["bad_files_count"]
            name, reason = next(iter(lacking.items()))
            more = f" (and {count - 1} more of {indexed.facts['files']} files)" if count > 1 else ""
            if not handle.pool.skip_bad_files:
                raise InputError(
                    f"{address(handle.pool, name)} {reason}{more}: repair or remove it, or set skip_bad_files, which leaves its "
                    "documents unrated."
                )
            unrated |= {**lacking, name: f"{reason}{more}, so its documents are unrated"}
        if wanted.use == "values":
            stored[wanted.name] = StoredColumn.open(column)
    opened = Index(indexed.path, stored)
    if opened.tokens is None and handle.pool.token_count_column in indexed.facts["columns"]:
        opened.tokens = np.broadcast_to(np.int32(UNKNOWN), len(opened))  # without a number in it nothing was kept
    opened.unrated = unrated
    opened.blobs = list(handle.readable)
    return opened


def _traits(root: Root, handle: PoolHandle, arm: Arm, opened: Index, listed: IdList | None) -> Traits:
    """What the selection has to know of all documents."""
    if listed is None:
        return traits_of(arm, handle.pool, opened)
    ids = open_ids(root.open(PoolFolder(handle.pool_id).column(arm.id_column, "ids")))
    on_it = listed.on_it(ids)
    if not on_it.any():
        raise InputError(
            f"None of the {len(listed.ids):,} ids of {arm.ids} is in the column {arm.id_column!r} of {handle.pool.address}: check id_column."
        )
    return traits_of(arm, handle.pool, opened, on_it)


def _select(handle: PoolHandle, arm: Arm, opened: Index, traits: Traits, held: HeldOut) -> Selection:
    """What the arm takes, none of it from the holdout."""

    def choose(one: Arm, taken: np.ndarray) -> Selection:
        check_subset(one, handle.pool)
        within = opened.of_source(one.subset) if one.subset else None
        excluded = np.union1d(held.documents, taken) if len(taken) else held.documents
        return select(one, handle.pool, traits, opened.tokens, excluded, within)

    selection = mix(arm, handle.pool, traits.scores, opened.tokens, choose) if arm.parts else choose(arm, NONE)
    if (count := len(selection.documents)) < RANKS:
        raise InputError(
            f"The arm {arm.name} takes {count} documents of {selection.population:,} that it may take, fewer than the {RANKS} "
            "row groups of a shard: raise its share."
        )
    return selection


def _scatter(
    root: Root,
    handle: PoolHandle,
    arms: Mapping[str, Arm],
    lists: Mapping[str, IdList],
    held: Artifact,
    passages: Artifact,
    near: dict[str, NearCopies],
    mapper: Workers,
    progress: Progress,
) -> dict[str, Callable[[Work], None]]:
    """Read the text once for all `arms`, {id: arm}. Returns what remains to be done for each, which adds its near copies to `near`."""
    mapper.get_ready()
    handle = _at_hand(root, handle, mapper.count, progress, mapper.shared)
    indexed = build_index(root, handle)
    opened = open_index(root, handle, indexed)
    taken = HeldOut(held, opened)
    with released(), ThreadPoolExecutor(1) as side:
        known = side.submit(taken.known_texts)
        selections, unrated, needed = {}, {}, 0
        for id, arm in arms.items():
            with_columns = open_index(root, handle, indexed, wanted_columns(arm, handle.pool))
            traits = _traits(root, handle, arm, with_columns, lists.get(id))
            unrated[id] = with_columns.unrated
            selections[id] = _select(handle, arm, opened, traits, taken)
            needed += disk_bytes(opened, selections[id].documents)
        check_disk(", ".join(arms), needed, root.folder)
        spaces = {id: Scratch.open(root, ArmFolder(id).intermediate("runs"), shared=mapper.shared) for id in arms}
        wanted = [(spaces[id], selections[id].documents, arm.deduplicate) for id, arm in arms.items()]
        done = [set(spaces[id].sizes()) for id in arms]
        pieces = list(scatter.plan_pieces(opened, wanted, done))
        drop_pages(opened.tokens)
        texts = known.result()
    count = Count("text", len(pieces), progress)
    pool = handle.pool
    looked_for = scatter.Near(place_of(root, passages, shared=mapper.shared), pool.holdout_near, pool.near == "remove")
    jobs = [
        scatter.ScatterJob(
            handle.urls, pool.text_column, tuple(batch), texts, looked_for, pool.skip_bad_files, mapper.threads
        )
        for batch in mapper.batches(pieces, lambda piece: of_batch(piece.reading.size))
    ]
    with released():
        for _ in mapper.run(scatter.scatter, jobs, count):
            pass
    arrived = {space: space.sizes() for space in spaces.values()}
    if any(piece.name not in arrived[target.scratch] for piece in pieces for target in piece.targets):
        raise InputError(
            f"What workers on other machines wrote is not under the root {root.url}: give one that all of them reach, "
            "az://container/prefix or a shared folder."
        )

    def make(id: str, work: Work) -> None:
        space, retries = spaces[id], count.counters["retries"]
        near[id] = write_arm(
            work, arms[id], opened, selections[id], unrated[id], space, held, mapper, retries, progress
        )

    return {id: partial(make, id) for id in arms}
