"""Sources of JSON lines made columnar, once for a pool: `pools/<pool>/columnar/<number of the place>/<name of the file>`, in Parquet.

Everything else reads these files in place of the blobs, under the names of the blobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tasks.corpus.left_out import left_out_facts
from tasks.corpus.lines import is_lines, write_columns
from tasks.corpus.parquet.footer import BadFile
from tasks.corpus.pool.handle import PoolHandle
from tasks.corpus.pool.sources import address, place_of, places
from tasks.corpus.workers import Count, Tick, Workers
from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import PoolFolder
from tasks.store.artifact import Work
from tasks.store.blobs import Blob
from tasks.store.named import named, open_named, unnamed
from tasks.store.root import Root


@dataclass(frozen=True)
class ColumnarJob:
    """Some blobs to be read from `urls`, as `open_named` takes them, and the file of each in `work`."""

    urls: Mapping[str, str]
    blobs: Mapping[str, Blob]
    work: Work


def make_columnar(job: ColumnarJob, tick: Tick) -> dict[str, str]:
    """Write the file of each blob; returns why some could not be, by the names of the blobs."""
    source, problems = open_named(job.urls), {}
    for file, blob in job.blobs.items():
        before = dict(vars(source.counters))
        try:
            rows = write_columns(
                blob.name,
                blob.size,
                lambda start, end, b=blob: source.read_range(b, start, end),
                job.work.temporary(file),
            )
            job.work.finish(file, rows)
        except BadFile as error:
            rows, problems[blob.name] = 0, error.reason
        counted = {name: value - before[name] for name, value in vars(source.counters).items()}
        tick({"units": 1, "rows": rows} | counted)
    return problems


class _Processes(Workers):
    """Parsing holds the interpreter lock: each core has a process of its own."""

    @property
    def processes(self) -> int:
        return self.count


def has_lines(handle: PoolHandle) -> bool:
    """Whether some of the pool's sources are JSON lines."""
    return any(is_lines(blob.name) for blob in handle.blobs)


def columnar(
    root: Root, handle: PoolHandle, workers: int, *, shared: bool = False, progress: Progress = silent
) -> PoolHandle:
    """The pool with its JSON lines made columnar, to be read from there; a pool without such is as it was.

    `shared`: other machines read it, from the root. Raises InputError naming a file that cannot be read, unless such are skipped.
    """
    if handle.columnar is not None or not has_lines(handle):
        return handle
    folders = {place: str(number) for number, place in enumerate(places(handle.pool))}
    lines = [blob for blob in handle.readable if is_lines(blob.name)]
    files = {
        f"{folders[place]}/{unnamed(place, blob).name}": blob
        for blob in lines
        for place in [place_of(handle.pool, blob)]
    }

    def make(work: Work) -> None:
        todo = {file: blob for file, blob in files.items() if work.done(file) is None}
        count = Count("columnar", len(files), progress, len(files) - len(todo))
        jobs = [ColumnarJob(handle.urls, {file: blob}, work) for file, blob in todo.items()]
        problems: dict[str, str] = {}
        for found in _Processes(workers).run(make_columnar, jobs, count):
            problems |= found
        if problems and not handle.pool.skip_bad_files:
            name, reason = min(problems.items())
            more = f" (and {len(problems) - 1} more of {len(files)} files)" if len(problems) > 1 else ""
            raise InputError(
                f"{address(handle.pool, name)} {reason}{more}: repair or remove it, or set skip_bad_files."
            )
        work.facts.update(
            files=len(files) - len(problems), problems=problems, **left_out_facts(problems), **count.counters
        )

    name = PoolFolder(handle.pool_id).columnar
    made = root.build(name, make, spec=handle.pool.identity(), inputs={"pool": handle.pool_id})
    base = f"{root.url}/{name}" if shared else made.path.as_uri()
    urls, readable = dict(handle.urls), {blob.name: blob for blob in handle.readable}
    for place in {place_of(handle.pool, blob) for blob in lines}:
        urls[place] = f"{base}/{folders[place]}"
        readable |= {(found := named(place, blob)).name: found for blob in open_named({"": urls[place]}).list()}
    return replace(
        handle,
        urls=urls,
        readable=tuple(readable[blob.name] for blob in handle.blobs),
        problems=made.facts["problems"],
        columnar=made.manifest,
    )
