"""The holdout in tokens: what every run of the pool is scored on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.progress import Progress, silent
from tasks.records.layout import DOCUMENTS, TOKENS, PoolFolder
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root
from tasks.tokens.encode import open_encoder
from tasks.tokens.tokenizer import Tokenizer, load_tokenizer

COLUMNS = ("document", "cluster", "bytes", "source")
"""Columns of the holdout that scores are grouped by; they pass through."""

READ = 512
CHECKED = 256
"""Documents on which the encoder is checked."""


def encode_holdout(root: Root, pool_id: str, progress: Progress = silent) -> Artifact:
    """Make `pools/<pool>/evaluation` from the pool's holdout and tokenizer.

    `tokens.bin`: uint16, little-endian, all documents back to back, no BOS. `documents.parquet`: the columns COLUMNS, and
    `offset` and `tokens` (int64, in tokens): document i is tokens.bin[offset : offset + tokens].
    """
    holdout, trained = root.open(PoolFolder(pool_id).holdout), root.open(PoolFolder(pool_id).tokenizer)
    tokenizer = load_tokenizer(trained.path)

    def make(work: Work) -> None:
        write_encoded(work, holdout.path / DOCUMENTS, tokenizer, progress)
        work.facts["tokenizer"] = trained.fingerprint

    inputs = {"holdout": holdout.manifest, "tokenizer": trained.manifest}
    return root.build(PoolFolder(pool_id).evaluation, make, spec={"columns": list(COLUMNS)}, inputs=inputs)


def write_encoded(work: Work, documents: Path, tokenizer: Tokenizer, progress: Progress) -> None:
    """Add tokens.bin and documents.parquet to an artifact in the making; `documents`: a file with COLUMNS and `text`."""
    with pq.ParquetFile(documents) as file:
        total = file.metadata.num_rows
        first = next(file.iter_batches(CHECKED, columns=["text"]))
        encoder = open_encoder(tokenizer, first.column(0).to_pylist())
        lengths, tables = [], []
        with work.temporary(TOKENS).open("wb") as out:
            for batch in file.iter_batches(READ, columns=[*COLUMNS, "text"]):
                ids, offsets = encoder.encode(batch.column("text"))
                out.write(ids.astype("<u2").tobytes())
                lengths.append(np.diff(offsets))
                tables.append(pa.Table.from_batches([batch.select(COLUMNS)]))
                progress("evaluation", sum(map(len, lengths)), total, {})
    counts = np.concatenate(lengths)
    table = pa.concat_tables(tables)
    table = table.append_column("offset", pa.array(np.cumsum(counts) - counts))
    table = table.append_column("tokens", pa.array(counts))
    work.finish(TOKENS, rows=int(counts.sum()))
    pq.write_table(table, work.temporary(DOCUMENTS), compression="zstd")
    work.finish(DOCUMENTS, rows=total)
    work.facts.update(
        documents=total,
        tokens=int(counts.sum()),
        bytes=int(np.sum(table["bytes"].to_numpy())),
        vocab_size=tokenizer.vocab_size,
        bos=tokenizer.bos,
        encoder=encoder.library,
    )
