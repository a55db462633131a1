"""How long preparing an arm takes, and what it needs, before there is an index: from sizes and measured rates.

The rates are fitted to whole preparations of `python -m benchmarks.data peers` on two cores of an AMD EPYC virtual machine, their
growth with the cores to these and to sixteen of an Intel Xeon one; what more cores do is extrapolated.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tasks.corpus.arm.emit import bucket_bytes

DECODE_BYTES_PER_SECOND = 400e6
"""Decoded text that one core receives as snappy Parquet, decodes, orders and writes as runs."""

ENCODE_BYTES_PER_SECOND = 250e6
"""Decoded text that one core reads from runs, orders, compresses with zstd level 3, hashes and writes."""

INDEX_DOCUMENTS_PER_SECOND = 0.5e6
"""Documents whose scores one core asks for, decodes and writes, in row groups of a thousand."""

TEXT_PART = 0.18
"""Compressed text of all bytes of a raw file with embeddings."""

SCORE_PART = 0.007
"""Footers, scores and token counts of all bytes."""

EXPANSION = 2.0
"""Decoded text for one byte of compressed text in the raw files (snappy)."""

SHARD_PART = 0.42
"""Bytes of a shard for one byte of decoded text."""

BYTES_PER_DOCUMENT = 60
MEMORY_BASE = 150e6
MEMORY_TO_DECODE = 115e6
"""Of a worker: what is on its way, what it decodes, and the run it makes of that."""

MEMORY_TO_ENCODE = 80e6
"""Of a worker, beside its bucket: order, page, compressor."""

LINE_EFFICIENCY = 0.8
"""Part of the line that is in use on average."""

CORE_EFFICIENCY, SCALING = 0.95, 0.75
"""So many cores together do `CORE_EFFICIENCY * cores ** SCALING` times what is said of one above: they share memory and caches."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of each phase, what limits it, bytes over the wire, memory and disk."""

    cores: int
    gbit: float
    share: float
    documents: int
    read_bytes: float
    index_seconds: float
    text_seconds: float
    shard_seconds: float
    limited_by: str
    memory_bytes: float
    disk_bytes: float

    @property
    def seconds(self) -> float:
        """Of the whole preparation."""
        return self.index_seconds + self.text_seconds + self.shard_seconds


def together(cores: int) -> float:
    """How many times one core's rates so many cores reach."""
    return CORE_EFFICIENCY * cores**SCALING


def estimate(documents: int, raw_bytes: float, *, cores: int, gbit: float, share: float) -> dict[str, Any]:
    """What preparing `share` of a rated pool takes on one machine with `cores` cores and a line of `gbit` Gbit/s.

    All of the text column is read and decoded whatever the share, because the best documents lie in every row group;
    ordering and encoding is for the share alone. JSON-ready.
    """
    line, used = gbit * 1e9 / 8 * LINE_EFFICIENCY, together(cores)
    text, scores = raw_bytes * TEXT_PART, raw_bytes * SCORE_PART
    decoded = text * EXPANSION
    reading, decoding = text / line, decoded / DECODE_BYTES_PER_SECOND / used
    encoding = share * decoded / ENCODE_BYTES_PER_SECOND / used
    bucket = bucket_bytes(int(share * decoded), cores, remote=False) * 9 / 8
    worker = max(MEMORY_TO_DECODE, MEMORY_TO_ENCODE + bucket)
    made = Estimate(
        cores=cores,
        gbit=gbit,
        share=share,
        documents=int(documents * share),
        read_bytes=text + scores,
        index_seconds=max(scores / line, documents / INDEX_DOCUMENTS_PER_SECOND / used),
        text_seconds=max(reading, decoding),
        shard_seconds=encoding,
        limited_by="the line" if reading > decoding + encoding else "the cores",
        memory_bytes=MEMORY_BASE + documents * BYTES_PER_DOCUMENT + cores * worker,
        disk_bytes=share * decoded * (1 + SHARD_PART),
    )
    return {**asdict(made), "seconds": made.seconds}
