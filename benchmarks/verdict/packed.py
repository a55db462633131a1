"""Real text for the benchmark of noise: the tokens of some arms to train on, and a holdout, in files that NumPy reads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from tasks.engines.builtin.compute import Compute
from tasks.tokens.packer import CropPacker

HELD_OUT = 0.03
"""Share of the documents."""
EVALUATION_TOKENS = 65_536
"""Tokens scored at a time."""
RATINGS = ("pedagogical_structure_average", "factual_accuracy_average", "lesson_engagement_average")
"""Columns whose mean ranks the documents of an arm `top`."""


@dataclass(frozen=True)
class Text:
    """An arm's rows (N, T + 1) and the holdout's windows (W, T), on the device; targets of padding are -1."""

    rows: Tensor
    inputs: Tensor
    targets: Tensor
    holdout_bytes: int
    vocab_size: int

    @classmethod
    def load(cls, folder: Path, arm: str, length: int, device: str) -> "Text":
        """What `pack` wrote. `arm` is a name, or NAME/crop for rows by best fit instead of a stream cut into rows."""
        name, _, packing = arm.partition("/")
        tokens, held = np.load(folder / f"{name}.npz")["tokens"], np.load(folder / "holdout.npz")
        windows = []
        for document in np.split(held["tokens"].astype(np.int32), held["ends"][:-1]):
            for start in range(0, len(document) - 1, length):
                part = document[start : start + length + 1]
                windows.append(np.pad(part, (0, length + 1 - len(part)), constant_values=-1))
        both = torch.from_numpy(np.stack(windows)).to(device)
        rows = cropped(tokens, length) if packing == "crop" else sliding_window_view(tokens, length + 1)[::length]
        inputs, targets = both[:, :-1].clamp_min(0).contiguous(), both[:, 1:].contiguous()
        return cls(
            torch.from_numpy(rows.astype(np.int32)).to(device),
            inputs, targets, int(held["bytes"].sum()), int(held["vocab"]),
        )  # fmt: skip

    def batches(self, rows: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of each step, in an order drawn by `seed`; after the last row, the first."""
        count = len(self.rows)
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


def cropped(tokens: np.ndarray, length: int) -> np.ndarray:
    """Documents, each with BOS as its first token, in rows (N, length + 1) by best fit; the stream begins with BOS."""
    bos = int(tokens[0])
    starts = np.flatnonzero(tokens == bos)
    packer = CropPacker(length, bos)
    packed = packer.push(
        np.delete(tokens, starts), np.append(starts - np.arange(len(starts)), len(tokens) - len(starts))
    )
    return np.concatenate([packed.rows, packer.flush().rows])


def pack(files: Sequence[Path], folder: Path, vocab_size: int, arms: Sequence[str], most_tokens: int) -> None:
    """Train a tokenizer on the documents that are not held out, and write the holdout and each arm, of at most `most_tokens` tokens.

    An arm is NAME:SHARE: `top:0.165`, the documents with the best ratings, shuffled; by any other name, as many random ones.
    """
    import pyarrow.parquet as pq

    from tasks.tokens.train import DOCUMENT_CHARACTERS, READ, train_reference

    tables = [pq.read_table(file) for file in files]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    order = np.random.default_rng(20).permutation(len(texts))
    held, trained = np.split(order, [int(len(texts) * HELD_OUT)])
    sample = [texts[place][:DOCUMENT_CHARACTERS] for place in trained[:20_000]]
    tokenizer = train_reference((sample[i : i + READ] for i in range(0, len(sample), READ)), vocab_size)
    bos = tokenizer.token_to_id("<|bos|>")

    def encode(places: np.ndarray) -> list[np.ndarray]:
        batch = tokenizer.encode_batch_fast([texts[place] for place in places])
        return [np.array([bos, *encoding.ids], np.uint16) for encoding in batch]

    folder.mkdir(parents=True, exist_ok=True)
    documents = encode(held)
    np.savez_compressed(
        folder / "holdout.npz",
        tokens=np.concatenate(documents),
        ends=np.cumsum([len(document) for document in documents]),
        bytes=np.array([len(texts[place].encode()) for place in held]),
        vocab=tokenizer.get_vocab_size(),
    )
    print(f"holdout: {len(held):,} documents, {sum(map(len, documents)):,} tokens", flush=True)
    for arm in arms:
        name, _, share = arm.partition(":")
        chosen = np.random.default_rng(21).permutation(trained)
        if name == "top":
            ratings = np.mean([np.concatenate([table[column] for table in tables]) for column in RATINGS], axis=0)
            chosen = chosen[ratings[chosen] >= np.quantile(ratings[trained], 1 - float(share))]
        chosen, documents, size = chosen[: round(float(share) * len(trained))], [], 0
        for start in range(0, len(chosen), 1_000):
            documents += encode(chosen[start : start + 1_000])
            size = sum(map(len, documents))
            if size >= most_tokens:
                break
        np.savez_compressed(folder / f"{name}.npz", tokens=np.concatenate(documents)[:most_tokens])
        print(f"{name}: {len(documents):,} documents, {min(size, most_tokens):,} tokens", flush=True)
