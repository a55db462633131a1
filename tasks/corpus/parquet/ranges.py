"""Byte ranges of blobs: joined where they lie close together, and fetched ahead of the decoders.

Under latency, throughput depends on how far requests run ahead.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tasks.store.blobs import Blob, Blobs

GAP = 128 << 10
"""Ranges less than this many bytes apart are fetched as one: at 100 MB/s the gap costs less than a request's latency."""

REQUESTS = 32
"""Requests in flight per process."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Range:
    """Bytes [start, end) of a blob."""

    start: int
    end: int


Parts = list[tuple[int, memoryview]]
"""Fetched ranges of a blob: the offset of each, and its bytes."""


def coalesce(ranges: Iterable[Range], gap: int = GAP) -> list[Range]:
    """The ranges in order; those that overlap or lie less than `gap` bytes apart are joined."""
    joined: list[Range] = []
    for part in sorted(ranges, key=lambda r: (r.start, r.end)):
        if joined and part.start - joined[-1].end <= gap:
            joined[-1] = Range(joined[-1].start, max(joined[-1].end, part.end))
        else:
            joined.append(part)
    return joined


def read_parts(source: Blobs, blob: Blob, ranges: Sequence[Range]) -> Parts:
    """Fetch small ranges of a blob, all at once."""
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
    """Fetch the ranges of each item and call `handle` on one of `threads` threads. Results come in the order of the items.

    Requests run ahead of the decoders until `ahead_bytes` compressed bytes are in flight or waiting (at least one item
    per decoder). The first error cancels what has not started.
    """
    with ThreadPoolExecutor(REQUESTS) as network, ThreadPoolExecutor(threads) as decoders:

        def work(item: Item, parts: list[tuple[int, Future]]) -> Result:
            fetched = [(start, future.result()) for start, future in parts]
            parts.clear()  # from here on `handle` alone holds the bytes
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
