"""The usual loader: what a training script does on the fly, with tiktoken's thread pool and a plain list as the buffer.

Texts of a row group go to tiktoken 128 at a time, each gets BOS in front, and every placement looks through the whole buffer.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import tiktoken
import torch

from tasks.tokens.packer import BATCH, BUFFER
from tasks.tokens.tokenizer import PATTERN, load_tokenizer

THREADS = 4


def pack(shards: list[Path], tokenizer_path: Path, sequence_length: int) -> tuple[int, int, str]:
    """(rows, tokens read, SHA-256 of the rows as uint16) of packing every document of the shards once."""
    tokenizer = load_tokenizer(tokenizer_path)
    encoding = tiktoken.Encoding(
        "usual", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks(), special_tokens=tokenizer.special_tokens
    )
    width = sequence_length + 1
    batches = _batches(shards)
    buffer: list[list[int]] = []
    row, position, rows, tokens = torch.empty(width, dtype=torch.long), 0, 0, 0
    digest = hashlib.sha256()
    while True:
        while len(buffer) < BUFFER and (texts := next(batches, None)) is not None:
            for ids in encoding.encode_ordinary_batch(texts, num_threads=THREADS):
                ids.insert(0, tokenizer.bos)
                buffer.append(ids)
                tokens += len(ids)
        if not buffer:
            return rows, tokens, digest.hexdigest()
        left = width - position
        best, best_length, shortest = -1, 0, 0
        for index, document in enumerate(buffer):
            if best_length < len(document) <= left:
                best, best_length = index, len(document)
        if best < 0:
            shortest = min(range(len(buffer)), key=lambda index: len(buffer[index]))
        document = buffer.pop(best if best >= 0 else shortest)[:left]
        row[position : position + len(document)] = torch.tensor(document, dtype=torch.long)
        position += len(document)
        if position == width:
            digest.update(row.numpy().astype("<u2").tobytes())
            rows, position = rows + 1, 0


def _batches(shards: list[Path]) -> Iterator[list[str]]:
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                texts = file.read_row_group(group, columns=["text"]).column("text").to_pylist()
                for start in range(0, len(texts), BATCH):
                    yield texts[start : start + BATCH]
