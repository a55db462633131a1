"""A random sample of a pool's texts for the tokenizer: whole row groups in random order, without the holdout.

Of several sources, each gives its share of the text.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.corpus.left_out import LeftOut, left_out_facts, warn
from tasks.corpus.parquet.footer import BadFile
from tasks.corpus.parquet.pages import Memory
from tasks.corpus.parquet.ranges import Parts, Range, fetch_ahead
from tasks.corpus.parquet.reading import Reading, take_texts
from tasks.corpus.parquet.texts import lengths
from tasks.corpus.pool.holdout import HeldOut
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.sources import place_numbers
from tasks.progress import Progress
from tasks.records import draws
from tasks.records.layout import SAMPLE
from tasks.spec import Pool
from tasks.store.artifact import Work
from tasks.store.blobs import Blobs

SCHEMA = pa.schema([("text", pa.large_string())])


def sample_arrays(
    pool: Pool,
    source: Blobs,
    index: Index,
    holdout: HeldOut,
    characters: int,
    seed: int,
    left_out: LeftOut,
    threads: int = 1,
) -> Iterator[pa.LargeStringArray]:
    """Texts of random row groups, an array for each, until they have `characters` characters (the last text is whole).

    Raises InputError for a file that cannot be read, unless `left_out` takes it.
    """
    order = np.argsort(draws.random_bits(seed, draws.SAMPLE, np.arange(len(index.rows))))
    free = index.rows - np.diff(np.searchsorted(holdout.documents, index.group_first))
    order = order[free[order] > 0]
    place = place_numbers(pool, index.blobs)[index.file[order]]
    text = np.bincount(place, index.text_bytes[order])
    for number in np.unique(place):
        share = round(characters * text[number] / text.sum())
        yield from _take(pool, source, index, holdout, order[place == number], share, left_out, threads)


def _take(
    pool: Pool,
    source: Blobs,
    index: Index,
    holdout: HeldOut,
    groups: np.ndarray,
    characters: int,
    left_out: LeftOut,
    threads: int,
) -> Iterator[pa.LargeStringArray]:
    """Texts of the row groups `groups` in this order, until they have `characters` characters."""
    memory = Memory()

    def items() -> Iterator[tuple[tuple[Reading, np.ndarray], object, list[Range]]]:
        for group in groups.tolist():
            file, first = int(index.file[group]), index.group_first[group]
            rows = np.setdiff1d(np.arange(first, first + index.rows[group]), holdout.documents, assume_unique=True)
            reading = index.reading([group], index.footers([file])[file])
            yield (reading, rows - first), reading.blob, reading.requests()

    def handle(item: tuple[Reading, np.ndarray], parts: Parts) -> pa.LargeStringArray:
        reading, rows = item
        try:
            texts = take_texts(reading, reading.texts(parts, pool.text_column, memory), rows).gather()
        except BadFile as error:
            left_out.add(error)
            return pa.array([], pa.large_string())
        return texts.filter(pa.array(lengths(texts) > 0))

    left = characters
    for texts in fetch_ahead(source, items(), handle, threads=threads, ahead_bytes=32 << 20):
        total = np.cumsum(pc.utf8_length(texts).to_numpy())
        count = int(np.searchsorted(total, left)) + 1
        yield texts.slice(0, count)
        if count <= len(texts):
            return
        left -= int(total[-1]) if len(total) else 0


def build(
    work: Work, pool: Pool, source: Blobs, index: Index, holdout: HeldOut, threads: int, progress: Progress
) -> None:
    """Write sample.parquet (column text) into a work directory."""
    documents = characters = 0
    left_out = LeftOut(source, pool.skip_bad_files)
    with pq.ParquetWriter(work.temporary(SAMPLE), SCHEMA, compression="zstd", use_dictionary=False) as writer:
        arrays = sample_arrays(pool, source, index, holdout, pool.tokenizer_characters, pool.seed, left_out, threads)
        for texts in arrays:
            writer.write_batch(pa.record_batch([texts], schema=SCHEMA))
            documents += len(texts)
            characters += pc.sum(pc.utf8_length(texts)).as_py() or 0
            progress(
                "sample", min(characters, pool.tokenizer_characters), pool.tokenizer_characters, vars(source.counters)
            )
    work.finish(SAMPLE, documents)
    work.facts.update(
        documents=documents,
        characters=characters,
        bytes_read=source.counters.bytes_read,
        requests=source.counters.requests,
        retries=source.counters.retries,
        **left_out_facts(left_out.reasons),
    )
    warn(f"The sample of {pool.name}", left_out.reasons)
