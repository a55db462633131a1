"""Near copies as the rule says them, word by word in plain Python, against the search on arrays and by block."""

import re
from collections import Counter
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.near import grams
from tasks.corpus.near.passages import COMMON, DIFFERENT, OWNERS, Passages

SHARE = 0.5
WORDS = 13
SHORT = ["the", "of", "and", "to", "in", "a", "is", "that", "it", "was", "x", "7", "2026"]
VOCABULARY = [*SHORT, *(f"word{i}" for i in range(40)), "größer", "long" * 80]
BETWEEN = [" ", " ", " ", ", ", "\n", " -- ", "\x11"]
MASK = 2**64 - 1


def hashed(word: bytes) -> int:
    mixed = int.from_bytes(word[:8], "little") ^ (len(word) % 256) << 56
    mixed = mixed * 0x9E3779B97F4A7C15 & MASK
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 & MASK


def passages_of(text: str) -> list[tuple[int, list[bytes]]]:
    """The sampled ones, by hash, with their words."""
    words = re.findall(rb"[a-z0-9\x80-\xff]+", text.encode().lower())  # of bytes: ASCII alone
    found = []
    for first in range(len(words) - WORDS + 1):
        passage = words[first : first + WORDS]
        rolled = sum(hashed(word) * pow(0xD1342543DE82EF95, i, 2**64) for i, word in enumerate(passage)) & MASK
        rolled = (rolled ^ rolled >> 31) * 0x9E3779B97F4A7C15 & MASK
        if rolled < 2**63:
            found.append((rolled, passage))
    return found


def by_the_rule(held: list[str], texts: list[str]) -> dict[tuple[int, int], float]:
    """Pairs of a text and a held-out one that it is near to, with the share."""
    known = [
        {key for key, words in passages_of(text) if len({w for w in words if w[1:] and w >= b"a"}) >= DIFFERENT}
        for text in held
    ]
    counts = Counter(key for keys in known for key in keys)
    owners = {
        key: sorted((i for i, keys in enumerate(known) if key in keys), key=lambda i: (len(known[i]), i))[:OWNERS]
        for key in counts
    }
    found = {}
    for row, text in enumerate(texts):
        keys = {key for key, _ in passages_of(text)} & counts.keys()
        for number in {number for key in keys for number in owners[key]}:
            shared = [key for key in keys if number in owners[key]]
            share = len(shared) / len(known[number])
            if share >= SHARE or any(counts[key] <= COMMON for key in shared):
                found[row, number] = share
    return found


def planted(seed: int) -> tuple[list[str], list[str]]:
    """Held-out texts and others, all put together from a few stretches of words in any case, with anything between them."""
    rng = np.random.default_rng(seed)
    stretches = [rng.choice(VOCABULARY, rng.integers(5, 60)).tolist() for _ in range(12)]

    def text() -> str:
        words = [word for i in rng.integers(0, len(stretches), rng.integers(0, 4)) for word in stretches[i]]
        shown = [word.upper() if rng.random() < 0.1 else word for word in words]
        return "".join(word + BETWEEN[rng.integers(len(BETWEEN))] for word in shown)

    return [text() for _ in range(14)], [text() for _ in range(10)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.sampled_from([40, 700, 1 << 18]))
def test_the_search_finds_what_the_rule_says_however_texts_are_cut_into_blocks(seed: int, block: int) -> None:
    held, texts = planted(seed)
    with patch.object(grams, "BLOCK", block), patch.object(grams, "ENOUGH", WORDS):
        known = Passages.of([pa.array(part, pa.large_string()) for part in (held[:5], held[5:])], SHARE)
        found = known.find(pa.array(["cut off", *texts], pa.large_string())[1:])
    pairs = zip(found.row.tolist(), found.document.tolist(), found.share.tolist(), strict=True)
    rule = by_the_rule(held, texts)
    assert {(row, number): share for row, number, share in pairs} == {k: np.float32(v) for k, v in rule.items()}
