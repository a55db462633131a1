"""Texts from elsewhere, in the tokens of a pool: what its runs are scored on beside the holdout.

An arm may have trained on such a text, or on an edited one: `flows.leaks` counts their near copies in arms.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import PoolFolder
from tasks.spec import Texts
from tasks.store.access import open_blobs
from tasks.store.artifact import Artifact, Work, fingerprint
from tasks.store.blobs import Blob, Blobs
from tasks.store.listing import data_files
from tasks.store.root import Root
from tasks.tokens.evaluation import write_encoded
from tasks.tokens.tokenizer import load_tokenizer

KINDS = (".parquet", ".jsonl", ".txt")
BLOCKS = 64
"""Neighbours resemble each other: the bootstrap draws whole blocks of them, of which it needs many."""


def encode_outside(root: Root, pool_id: str, texts: Texts, progress: Progress = silent) -> Artifact:
    """Make `pools/<pool>/outside/<name>-<fingerprint>`, with the files of `pools/<pool>/evaluation`.

    Empty documents are left out and counted.
    Raises InputError when there are no such files, one cannot be read, or all texts are empty.
    """
    source = open_blobs(texts.url)
    blobs = data_files(source, KINDS)
    trained = root.open(PoolFolder(pool_id).tokenizer)
    tokenizer = load_tokenizer(trained.path)

    def make(work: Work) -> None:
        found = list(islice(_documents(texts, source, blobs), texts.documents))
        kept = [(name, text) for name, text in found if text]
        if not kept:
            raise InputError(f"The {len(found):,} documents under {texts.url} are all empty: check the column.")
        written = work.temporary("texts.parquet")
        pq.write_table(_table(kept), written)
        write_encoded(work, written, tokenizer, progress)
        written.unlink()
        work.facts.update(empty_texts=len(found) - len(kept), tokenizer=trained.fingerprint)

    name = f"{texts.name}-{fingerprint(texts.identity(), [[b.name, b.size, b.etag] for b in blobs])}"
    inputs = {"tokenizer": trained.manifest}
    return root.build(PoolFolder(pool_id).outside(name), make, spec=texts.identity(), inputs=inputs)


def texts_of(texts: Texts) -> list[str]:
    """What `encode_outside` encodes, in its order: text number i is document i of the scores."""
    source = open_blobs(texts.url)
    found = islice(_documents(texts, source, data_files(source, KINDS)), texts.documents)
    return [text for _, text in found if text]


def blocks(count: int) -> np.ndarray:
    """The block of each of `count` neighbours, in at most `BLOCKS` blocks of equal size: int32 (count,)."""
    return (np.arange(count) // max(1, -(-count // BLOCKS))).astype(np.int32)


def _table(documents: Sequence[tuple[str, str]]) -> pa.Table:
    texts = pa.array([text for _, text in documents], pa.large_string())
    return pa.table(
        {
            "document": np.arange(len(documents)),
            "cluster": blocks(len(documents)),
            "bytes": pc.binary_length(texts).cast(pa.int64()),
            "source": [name for name, _ in documents],
            "text": texts,
        }
    )


def _documents(texts: Texts, source: Blobs, blobs: Sequence[Blob]) -> Iterator[tuple[str, str]]:
    """(file name, text) of every document, in the order of names; bytes that are no UTF-8 become U+FFFD."""
    for blob in blobs:
        data = bytes(source.read_range(blob, 0, blob.size)) if blob.size else b""
        read = {".parquet": _rows, ".jsonl": _lines}.get(blob.name[blob.name.rfind(".") :], _whole)
        for text in read(data, texts.column, f"{texts.url}/{blob.name}"):
            yield blob.name, text


def _whole(data: bytes, column: str, place: str) -> Iterator[str]:
    yield data.decode(errors="replace")


def _lines(data: bytes, column: str, place: str) -> Iterator[str]:
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[column]
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"Line {number} of {place} is not a JSON object with the field {column!r}: name another field."
            ) from error
        if not isinstance(text, str | None):
            raise InputError(f"The field {column!r} in line {number} of {place} is not text: name another field.")
        yield (text or "").encode(errors="replace").decode()


def _rows(data: bytes, column: str, place: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            names = file.schema_arrow.names
            if names.count(column) != 1:
                found = f"{names.count(column)} columns" if column in names else "no column"
                raise InputError(
                    f"{place} has {found} {column!r}, but {', '.join(names)}: name one that is there once."
                )
            for batch in file.iter_batches(1_024, columns=[column]):
                for text in batch.column(column).cast(pa.large_binary()):
                    yield (text.as_py() or b"").decode(errors="replace")
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{place} cannot be read as parquet texts ({str(error).splitlines()[0]}): remove it."
        ) from error
