"""How many tokens an arm will be packed into, as a range, before its text is read.

What is known then: the bytes of its text, by the pool's footers; perhaps a column with each document's length in tokens of some
other tokenizer; and, once the pool has a tokenizer, what that does to the pool's sample. Each gives bounds; all hold together.
"""

import math

import numpy as np
import pyarrow.parquet as pq

from tasks.records.layout import SAMPLE, PoolFolder
from tasks.spec import Arm, Training
from tasks.store.root import Root
from tasks.tokens.tokenizer import load_tokenizer

SAMPLED = 512
"""Documents of the pool's sample that are encoded."""
USUAL = (0.12, 0.4)
"""Bytes of a token for each bit that its number has: 1.8 to 6 with 32,768 tokens, where English web text has 4.5 and code 3."""
COUNTED = (0.7, 1.4)
"""Our tokens for each one of the pool's column, if both vocabularies were as large as the usual one."""
COUNTED_VOCAB = 50_257
"""The vocabulary of GPT-2, whose tokens such columns mostly count."""
UNEVEN = 2.0
"""How many times longer or shorter a selection's documents are at most than their neighbors, by which the footers count them."""
KEPT = 0.3
"""The least that cropping leaves of the tokens that a row each could hold."""


def forecast_tokens(
    root: Root,
    pool_id: str,
    arm: Arm,
    training: Training,
    vocab: int,
    *,
    documents: int,
    size: int,
    counted: int | None,
) -> tuple[int, int]:
    """The least and the most tokens that can be trained on an arm of `documents` documents and `size` bytes of text, all epochs.

    `vocab`: tokens in the pool's vocabulary. `counted`: tokens of the arm by the pool's column, None without one.
    """
    least, most = _bytes_a_token(root, pool_id, vocab)
    uneven = 1.1 if arm.whole or (arm.select == "random" and not arm.parts) else UNEVEN
    low, high = size / uneven / most, size * uneven / least
    if counted:
        smaller = max(1.0, math.log2(COUNTED_VOCAB) / math.log2(vocab))
        by_column = counted * COUNTED[0], counted * COUNTED[1] * smaller
        if max(low, by_column[0]) < min(high, by_column[1]):  # else it counts something else
            low, high = max(low, by_column[0]), min(high, by_column[1])
    high += documents  # each begins with a BOS
    if training.packing == "crop":
        rows = documents * training.sequence_length  # no document is in two of them
        low, high = KEPT * min(low, rows), min(high, rows)
    return int(low) * arm.epochs, int(high) * arm.epochs


def _bytes_a_token(root: Root, pool_id: str, vocab_size: int) -> tuple[float, float]:
    """Bounds of the bytes of an arm's token: the middle nine tenths of the sample's documents, or what is usual without it."""
    pool = PoolFolder(pool_id)
    if root.find(pool.tokenizer) is None or root.find(pool.sample) is None:
        bits = math.log2(vocab_size)
        return USUAL[0] * bits, USUAL[1] * bits
    tokenizer = load_tokenizer(root.open(pool.tokenizer).path)
    with pq.ParquetFile(root.file(pool.sample, SAMPLE)) as file:
        texts = [text for text in next(file.iter_batches(SAMPLED)).column(0).to_pylist() if text]
    ratios = [len(text.encode()) / len(tokenizer.encode(text)) for text in texts]
    least, most = np.quantile(ratios, [0.05, 0.95])
    return float(least), float(most)
