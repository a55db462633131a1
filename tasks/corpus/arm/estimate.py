"""How long it takes to prepare an arm and what it needs, estimated from sizes and measured rates before there is an index.

The rates fit whole preparations by `python -m benchmarks.data peers` on two cores of a virtual AMD EPYC machine. How they
grow with the cores was fitted to those and to sixteen cores of a virtual Intel Xeon machine; beyond that it is extrapolated.
"""

from dataclasses import dataclass

from tasks.corpus.arm.emit import bucket_bytes

DECODE_BYTES_PER_SECOND = 400e6
"""Decoded text that one core receives as Snappy Parquet, decodes, orders and writes as runs."""

ENCODE_BYTES_PER_SECOND = 250e6
"""Decoded text that one core reads from runs, orders, compresses with zstd level 3, hashes and writes."""

INDEX_DOCUMENTS_PER_SECOND = 0.5e6
"""Documents whose scores one core requests, decodes and writes, in row groups of a thousand."""

TEXT_PART = 0.18
"""Compressed text as a fraction of a raw file with embeddings."""

SCORE_PART = 0.007
"""Footers, scores and token counts as a fraction of a raw file."""

EXPANSION = 2.0
"""Bytes of decoded text per byte of compressed text in the raw files (Snappy)."""

SHARD_PART = 0.42
"""Bytes of a shard per byte of decoded text."""

BYTES_PER_DOCUMENT = 60
MEMORY_BASE = 150e6
MEMORY_TO_DECODE = 115e6
"""Per worker: bytes in flight, bytes decoded, and the run made of them."""

MEMORY_TO_ENCODE = 80e6
"""Per worker, besides its bucket: order, page, compressor."""

LINE_EFFICIENCY = 0.8
"""Fraction of the line that is in use on average."""

CORE_EFFICIENCY, SCALING = 0.95, 0.75
"""`cores` cores reach `CORE_EFFICIENCY * cores ** SCALING` times the rates of one: they share memory and caches."""


@dataclass(frozen=True)
class PreparationEstimate:
    """Seconds per phase, the limiting resource, and bytes over the wire, of memory and of disk."""

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
        """Seconds of the whole preparation."""
        return self.index_seconds + self.text_seconds + self.shard_seconds


def together(cores: int) -> float:
    """How many times the rates of one core `cores` cores reach."""
    return CORE_EFFICIENCY * cores**SCALING


def estimate(documents: int, raw_bytes: float, *, cores: int, gbit: float, share: float) -> PreparationEstimate:
    """What it takes to prepare `share` of a rated pool on one machine with `cores` cores and a line of `gbit` Gbit/s.

    The whole text column is read and decoded whatever the share, because the best documents lie in every row group; only
    the share is ordered and encoded.
    """
    line, used = gbit * 1e9 / 8 * LINE_EFFICIENCY, together(cores)
    text, scores = raw_bytes * TEXT_PART, raw_bytes * SCORE_PART
    decoded = text * EXPANSION
    reading, decoding = text / line, decoded / DECODE_BYTES_PER_SECOND / used
    encoding = share * decoded / ENCODE_BYTES_PER_SECOND / used
    bucket = bucket_bytes(int(share * decoded), cores, remote=False) * 9 / 8
    worker = max(MEMORY_TO_DECODE, MEMORY_TO_ENCODE + bucket)
    return PreparationEstimate(
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
