"""Megabytes that each encoder gets through in a second of CPU, and whether its ids are those of the reference.

    python -m benchmarks.tokens [--text FILE.parquet] [--vocab-size 32768]

Text: the column `text` of the given parquet file; without one, the documentation found on this machine.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.local.sample_data import PACKAGES, choose
from tasks.errors import InputError
from tasks.records.layout import PoolFolder
from tasks.store.artifact import Work
from tasks.store.root import Root
from tasks.tokens.encode import CANDIDATES, with_reference
from tasks.tokens.pack import CHECKED
from tasks.tokens.tokenizer import load_tokenizer
from tasks.tokens.train import train_tokenizer

POOL = "pool-benchmark"
TRAINED_MEGABYTES, COMPARED_MEGABYTES = 20, 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__.split("\n\n")[0])
    parser.add_argument("--text", type=Path, help="parquet file with a column `text`")
    parser.add_argument("--vocab-size", type=int, default=32_768)
    options = parser.parse_args()
    texts = pq.read_table(options.text, columns=["text"])["text"].to_pylist() if options.text else documentation()
    with tempfile.TemporaryDirectory() as folder:
        root = Root(folder)
        vocab_size = train(root, texts, options.vocab_size)
        print(f"{options.text or 'documentation on this machine'}, vocabulary {vocab_size:,}")
        compare_encoders(root, texts)


def compare_encoders(root: Root, texts: list[str]) -> None:
    """Megabytes a CPU second of every encoder, and whether its ids are those of the reference."""
    tokenizer = load_tokenizer(root.path(PoolFolder(POOL).tokenizer))
    column = pa.array(list(_first(texts, COMPARED_MEGABYTES)), pa.large_string())
    encoders = {library: make(tokenizer) for library, make in [*CANDIDATES.items(), ("tokenizers", with_reference)]}
    ids, seconds = {}, {}
    for library, encode in encoders.items():
        encode(column[:CHECKED])
        start = time.process_time()
        ids[library], _ = encode(column)
        seconds[library] = time.process_time() - start
    for library, found in ids.items():
        equal = "the same ids" if np.array_equal(found, ids["tokenizers"]) else "OTHER IDS"
        print(f"{library:14}{column.nbytes / 1e6 / seconds[library]:8.1f} MB per CPU s, {equal}")


def documentation() -> list[str]:
    """Docstrings and help texts of what is installed here."""
    return [text for _, text in choose(10**6, PACKAGES)]


def train(root: Root, texts: list[str], vocab_size: int) -> int:
    """A tokenizer of the asked size, or of half of it as often as the text is too little; returns its size."""

    def make(work: Work) -> None:
        table = pa.table({"text": pa.array(list(_first(texts, TRAINED_MEGABYTES)), pa.large_string())})
        pq.write_table(table, work.temporary("sample.parquet"))
        work.finish("sample.parquet", rows=len(table))

    root.build(PoolFolder(POOL).sample, make, spec={})
    while True:
        try:
            return int(train_tokenizer(root, POOL, vocab_size).facts["vocab_size"])
        except InputError:
            vocab_size //= 2


def _first(texts: list[str], megabytes: int) -> Iterator[str]:
    size = 0
    for text in texts:
        if size > megabytes * 1e6:
            return
        size += len(text.encode())
        yield text


if __name__ == "__main__":
    main()
