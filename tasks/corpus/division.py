"""What columns of a pool say of its holdout's documents: `pools/<pool>/divisions/<column>`, read when a verdict first asks for it.

It changes nothing that is there: pools keep their names, and runs of before can be told apart by a column too.
"""

from collections.abc import Sequence
from dataclasses import replace

from tasks.corpus.arm.traits import score_columns
from tasks.corpus.pool.asked import require_asked, require_values
from tasks.corpus.pool.column import Wanted
from tasks.corpus.pool.columnar import has_lines
from tasks.corpus.pool.handle import PoolHandle, open_pool
from tasks.corpus.pool.holdout import HeldOut
from tasks.corpus.prepare import build_holdout, build_index, open_index
from tasks.expression import require_columns
from tasks.progress import Progress, silent
from tasks.records.division import write_division
from tasks.records.layout import PoolFolder
from tasks.spec import Pool, Score
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root


def require_columns_there(
    root: Root, pool: Pool | PoolHandle, columns: Sequence[str], score: Score | None = None
) -> None:
    """Raises InputError when the pool lacks one of the `columns` that strata are by, or of those of the `score` of its halves and
    deciles, has a date or the like there, or text in a mean.

    Without an index a few footers tell the names, and always the types of what has not been read yet. JSON lines tell later, but have no such types.
    """
    handle = open_pool(root, pool)
    folder, lines = PoolFolder(handle.pool_id), has_lines(handle)
    rated = score is not None and root.find(folder.strata(score)) is not None
    of_score = () if score is None or rated else score_columns(score, handle.pool)
    wanted = [*map(Wanted, columns), *of_score]
    if (found := root.find(folder.index)) is not None:
        needed = [each.name for each in of_score if each.may_lack != "all"]
        for asking, names in (("strata", columns), ("The score", needed)):
            require_columns(asking, names, found.facts["columns"], handle.pool.address)
    elif wanted and not lines:
        require_asked(handle, wanted)
    values = [name for name in columns if root.find(folder.division(name)) is None]
    scored = [
        each.name
        for each in of_score
        if each.may_lack != "all" and root.find(folder.column(each.name, each.use)) is None
    ]
    if not lines and (values or scored):
        mean = not isinstance(score, str)
        require_values(handle, [*values, *([] if mean else scored)], scored if mean else [])


def build_division(
    root: Root, pool: Pool | PoolHandle, column: str, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """The values of a column at the holdout's documents, in its order: what a verdict divides it by. Raises InputError without such a column."""
    handle = open_pool(root, pool)
    require_columns_there(root, handle, [column])
    if root.find(PoolFolder(handle.pool_id).index) is not None:  # one more column is not worth a copy of all blobs
        handle = replace(handle, pool=handle.pool.model_copy(update={"download": "ranged"}))
    held = build_holdout(root, handle, workers=workers, progress=progress)
    wanted = [Wanted(column, may_lack="some")]
    indexed = build_index(root, handle, wanted, workers=workers, progress=progress)

    def make(work: Work) -> None:
        opened = open_index(root, handle, indexed, wanted)
        values = opened.columns[column].at(HeldOut(held, opened).numbers)
        write_division(work, values)
        work.facts.update(missing=values.null_count)

    name = PoolFolder(handle.pool_id).division(column)
    inputs = {"holdout": held.manifest, "index": indexed.manifest}
    return root.build(name, make, spec={"column": column}, inputs=inputs)
