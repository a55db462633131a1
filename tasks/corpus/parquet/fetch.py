"""A fetch pool ahead of decoders: under latency, how far ahead of the decoders bytes are asked for decides the speed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tasks.corpus.parquet.ranges import Parts, Range
from tasks.store.blobs import Blob, Blobs

REQUESTS = 32
"""Requests in flight of one process."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_parts(source: Blobs, blob: Blob, ranges: Sequence[Range]) -> Parts:
    """The ranges of a blob, side by side: for small ones."""
    found = source.read_ranges(blob, [(r.start, r.end) for r in ranges])
    return [(r.start, data) for r, data in zip(ranges, found, strict=True)]


def fetch_ahead(
    source: Blobs,
    items: Iterable[tuple[Item, Blob, Sequence[Range]]],
    handle: Callable[[Item, Parts], Result],
    *,
    threads: int,
    ahead_bytes: int = 56 << 20,
) -> Iterator[Result]:
    """Fetch each item's ranges and hand them to `handle` on one of `threads` threads; results come in the items' order.

    Requests run ahead of the decoders until `ahead_bytes` compressed bytes are on their way or wait (at least one item
    per decoder). The first error ends it: what was not started is cancelled.
    """
    with ThreadPoolExecutor(REQUESTS) as network, ThreadPoolExecutor(threads) as decoders:

        def work(item: Item, parts: list[tuple[int, Future]]) -> Result:
            fetched = [(start, future.result()) for start, future in parts]
            parts.clear()  # nobody but `handle` holds the bytes
            return handle(item, fetched)

        queue: deque[tuple[Future, int]] = deque()
        waiting = 0
        try:
            for item, blob, ranges in items:
                size = sum(r.end - r.start for r in ranges)
                while len(queue) > threads and waiting + size > ahead_bytes:
                    future, done = queue.popleft()
                    yield future.result()
                    waiting -= done
                parts = [(r.start, network.submit(source.read_range, blob, r.start, r.end)) for r in ranges]
                queue.append((decoders.submit(work, item, parts), size))
                waiting += size
            while queue:
                yield queue.popleft()[0].result()
        except BaseException:
            network.shutdown(wait=False, cancel_futures=True)
            decoders.shutdown(wait=False, cancel_futures=True)
            raise
