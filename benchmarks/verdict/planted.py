"""Small pools of real documentation text in which a third of the documents are junk: their letters shuffled, their ratings low.

The same texts with the same ratings permuted among them are a control: there ratings say nothing, and no arm is better.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.local.sample_data import build_sample
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool, Training

SEED = 20
FILES = 4
JUNK = 1 / 3


def documentation(folder: Path, characters: int) -> list[str]:
    """The texts of the sample in random order, of each so many characters at most."""
    sample = build_sample(folder)
    texts = [
        text[:characters]
        for file in sorted(sample.path.glob("*.parquet"))
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    ]
    random.Random(SEED).shuffle(texts)
    return texts


def small_pool(name: str, source: Path, holdout_documents: int) -> Pool:
    """A pool of few documents with a vocabulary to match."""
    return Pool(
        name=name,
        source=source.as_uri(),
        holdout_documents=holdout_documents,
        holdout_fraction=0.1,
        vocab_size=1_024,
        tokenizer_characters=2_000_000,
    )


def small_arm(name: str, select: str, share: float) -> Arm:
    """An arm of a small pool."""
    return Arm(name=name, select=select, share=share, order="shuffled", documents_per_shard=400)


def small_training(**settings: Any) -> Training:
    """A training of two layers on a CPU."""
    return Training(depth=2, window_pattern="L", precision="fp32", device="cpu", wandb="disabled", **settings)


def write_pool(folder: Path, texts: Sequence[str], *, permuted: bool) -> Path:
    """Raw files of a pool: a third junk, rated 0 to 1, the others 3 to 5; the same ratings on other documents if `permuted`."""
    rng, numbers = random.Random(SEED), np.random.default_rng(SEED)
    junk = numbers.random(len(texts)) < JUNK
    ratings = np.where(junk, numbers.uniform(0, 1, len(texts)), numbers.uniform(3, 5, len(texts)))
    written = ["".join(rng.sample(text, len(text))) if bad else text for text, bad in zip(texts, junk, strict=True)]
    ratings = numbers.permutation(ratings) if permuted else ratings
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(texts)), FILES)):
        columns: dict[str, Any] = {
            "text": [written[i] for i in part],
            "token_count": [len(written[i]) // 4 for i in part],
        }
        columns |= {name: ratings[part] for name in (PEDAGOGICAL, FACTUAL, ENGAGEMENT)}
        pq.write_table(pa.table(columns), folder / f"part_{number:05d}.parquet", row_group_size=100)
    return folder
