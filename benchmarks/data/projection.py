"""The written estimate for 248 GB and 52 M documents, from the measured rates in `tasks.corpus.arm.rates`."""

import argparse
from dataclasses import dataclass

from tasks.corpus.arm.emit import bucket_bytes
from tasks.corpus.arm.rates import DECODE_BYTES_PER_SECOND, ENCODE_BYTES_PER_SECOND, together

DOCUMENTS, RAW = 52_000_000, 248e9
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


def main(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print("| cores | Gbit/s | share | read GB | minutes | limited by | memory GB | disk GB |\n|" + " --- |" * 8)
    for share in (0.165, 1.0):
        for cores in (2, 16, 64):
            for gbit in (1, 10):
                made = estimate(DOCUMENTS, RAW, cores=cores, gbit=gbit, share=share)
                print(
                    f"| {cores} | {gbit} | {share:g} | {made.read_bytes / 1e9:.0f} | {made.seconds / 60:.1f} | "
                    f"{made.limited_by} | {made.memory_bytes / 1e9:.1f} | {made.disk_bytes / 1e9:.0f} |"
                )
