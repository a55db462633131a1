"""Real text for the benchmark of noise: a stream of tokens to train on and a holdout, in two files that NumPy reads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.engines.builtin.compute import Compute

HELD_OUT = 0.1
"""Share of the documents."""
EVALUATION_TOKENS = 65_536
"""Tokens scored at a time."""


@dataclass(frozen=True)
class Text:
    """Packed rows (N, T + 1) and the holdout's windows (W, T), on the device; targets of padding are -1."""

    rows: Tensor
    inputs: Tensor
    targets: Tensor
    holdout_bytes: int
    vocab_size: int

    @classmethod
    def load(cls, folder: Path, length: int, device: str) -> "Text":
        """What `pack` wrote. The stream of documents is cut into rows, nothing lost; each holdout document into windows."""
        stream = torch.from_numpy(np.load(folder / "stream.npy").astype(np.int32)).to(device)
        held = np.load(folder / "holdout.npz")
        windows = []
        for document in np.split(held["tokens"].astype(np.int32), held["ends"][:-1]):
            for start in range(0, len(document) - 1, length):
                part = document[start : start + length + 1]
                windows.append(np.pad(part, (0, length + 1 - len(part)), constant_values=-1))
        both = torch.from_numpy(np.stack(windows)).to(device)
        inputs, targets = both[:, :-1].clamp_min(0).contiguous(), both[:, 1:].contiguous()
        return cls(stream.unfold(0, length + 1, length), inputs, targets, int(held["bytes"].sum()), int(held["vocab"]))

    def batches(self, rows: int, steps: int, seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of each step, in the order of the file or (`seed`) a shuffled one; after the last row, the first."""
        count = len(self.rows)
        order = torch.arange(count)
        if seed is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        for step in range(steps):
            chosen = order[torch.arange(step * rows, (step + 1) * rows) % count]
            block = self.rows[chosen.to(self.rows.device)].long()
            yield block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def bits_per_byte(self, compute: Compute) -> float:
        """Of the holdout."""
        nats, count = 0.0, max(1, EVALUATION_TOKENS // self.inputs.size(1))
        for inputs, targets in zip(self.inputs.split(count), self.targets.split(count), strict=True):
            nats += compute.losses(inputs.long(), targets.long()).double().sum()
        return float(nats) / math.log(2) / self.holdout_bytes


def pack(files: Sequence[Path], folder: Path, vocab_size: int) -> None:
    """Train a tokenizer on the documents that are not held out, and encode all."""
    import pyarrow.parquet as pq

    from tasks.tokens.train import DOCUMENT_CHARACTERS, READ, train_reference

    texts = [t for file in files for t in pq.read_table(file, columns=["text"])["text"].to_pylist() if t]
    texts = [texts[place] for place in np.random.default_rng(20).permutation(len(texts))]
    held = int(len(texts) * HELD_OUT)
    cut = [text[:DOCUMENT_CHARACTERS] for text in texts[held:]]
    tokenizer = train_reference((cut[i : i + READ] for i in range(0, len(cut), READ)), vocab_size)
    bos = tokenizer.token_to_id("<|bos|>")
    encoded = [np.array([bos, *tokenizer.encode(text).ids], dtype=np.uint16) for text in texts]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "stream.npy", np.concatenate(encoded[held:]))
    np.savez(
        folder / "holdout.npz",
        tokens=np.concatenate(encoded[:held]),
        ends=np.cumsum([len(tokens) for tokens in encoded[:held]]),
        bytes=np.array([len(text.encode()) for text in texts[:held]]),
        vocab=tokenizer.get_vocab_size(),
    )
    print(f"{len(texts) - held:,} documents, {sum(map(len, encoded[held:])):,} tokens; {held:,} held out")
