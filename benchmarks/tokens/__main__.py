"""Tokens a second from text shards to packed rows, ours against the usual loader, interleaved, each run in a fresh process.

    python -m benchmarks.tokens [--text FILE.parquet] [--megabytes 60] [--cores 2] [--rounds 3]

Text: the column `text` of the given parquet file; without one, the documentation found on this machine. Both must give the
same rows, byte for byte; the run fails otherwise. Ours includes reading, checking the encoder, writing the rows, syncing and
hashing them; the usual loader's rows stay in memory.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tokens.runs import ARM, POOL, Run, run_ours, run_usual
from infra.local.sample_data import PACKAGES, choose
from tasks.errors import InputError
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.store.root import Root
from tasks.tokens.encode import CANDIDATES, with_reference
from tasks.tokens.pack import CHECKED
from tasks.tokens.tokenizer import load_tokenizer
from tasks.tokens.train import train_tokenizer

DOCUMENTS_PER_SHARD, ROW_GROUP = 14_000, 875
TRAINED_MEGABYTES, COMPARED_MEGABYTES = 20, 10
BAR = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__.split("\n\n")[0])
    parser.add_argument("--text", type=Path, help="parquet file with a column `text`")
    parser.add_argument("--megabytes", type=int, default=60, help="size of the arm; a smaller text is repeated")
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--sequence-length", type=int, default=2_048)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    root = Root(folder)
    texts = pq.read_table(options.text, columns=["text"])["text"].to_pylist() if options.text else documentation()
    megabytes, times = write_arm(root, texts, options.megabytes)
    vocab_size = train(root, texts, options.vocab_size)
    print(
        f"{megabytes:.0f} MB of text ({times:.1f} x {options.text or 'documentation on this machine'}), vocabulary "
        f"{vocab_size:,}, rows of {options.sequence_length:,} + 1, {options.cores} cores, {options.rounds} rounds"
    )
    compare_encoders(root, texts)
    runs: dict[str, list[Run]] = {"usual loader": [], "FabRating": []}
    for _ in range(options.rounds):
        for name, measured in (("usual loader", run_usual), ("FabRating", run_ours)):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                runs[name].append(pool.submit(measured, folder, options.sequence_length, options.cores).result())
    if len({run.digest for each in runs.values() for run in each}) != 1:
        raise SystemExit("The rows differ: this is a defect, the timings mean nothing.")
    report(runs, options.cores)


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


def report(runs: dict[str, list[Run]], cores: int) -> None:
    """Medians over the rounds, and the ratio of each round's pair."""
    print(f"\n{'':14}{'tokens/s':>12}{'per core':>12}{'per CPU s':>12}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}")
    for name, each in runs.items():
        wall, cpu = (statistics.median(getattr(run, field) for run in each) for field in ("wall", "cpu"))
        tokens, peak = each[0].tokens, max(run.peak_mib for run in each)
        rates = "".join(f"{tokens / seconds:12,.0f}" for seconds in (wall, wall * cores, cpu))
        print(f"{name:14}{rates}{wall:9.2f}{cpu:9.2f}{peak:10,.0f}")
    pairs = list(zip(*runs.values(), strict=True))
    for field in ("wall", "cpu"):
        ratios = sorted(getattr(theirs, field) / getattr(ours, field) for theirs, ours in pairs)
        print(
            f"ratio of {field} time: {statistics.median(ratios):.2f}x (rounds {', '.join(f'{r:.2f}' for r in ratios)}); "
            f"bar {BAR:.0f}x"
        )
    ours = runs["FabRating"][0]
    print(f"the same {ours.rows:,} rows byte for byte, SHA-256 {ours.digest[:16]}...")


def documentation() -> list[str]:
    """Docstrings and help texts of what is installed here."""
    return [text for _, text in choose(10**6, PACKAGES)]


def write_arm(root: Root, texts: list[str], megabytes: int) -> tuple[float, float]:
    """Text shards as an arm has them, the holdout last; (megabytes, how often the texts were gone through)."""
    chosen, size = [], 0
    for text in cycle(texts):
        chosen.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    shards = [chosen[start : start + DOCUMENTS_PER_SHARD] for start in range(0, len(chosen), DOCUMENTS_PER_SHARD)]

    def make(work) -> None:
        for number, shard in enumerate([*shards, texts[:8]]):
            name = f"shard_{number:05d}.parquet"
            table = pa.table({"text": pa.array(shard, pa.large_string())})
            pq.write_table(table, work.temporary(name), ROW_GROUP, compression="zstd", compression_level=3)
            work.finish(name, rows=len(shard))

    root.build(ArmFolder(ARM).text, make, spec={})
    return size / 1e6, len(chosen) / len(texts)


def train(root: Root, texts: list[str], vocab_size: int) -> int:
    """A tokenizer of the asked size, or of half of it as often as the text is too little; returns its size."""

    def make(work) -> None:
        table = pa.table({"text": pa.array(list(_first(texts, TRAINED_MEGABYTES)), pa.large_string())})
        pq.write_table(table, work.temporary("sample.parquet"))
        work.finish("sample.parquet", rows=len(table))

    root.build(PoolFolder(POOL).sample, make, spec={})
    while True:
        try:
            return train_tokenizer(root, POOL, vocab_size).facts["vocab_size"]
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
