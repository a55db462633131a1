"""Encode many texts: the fastest library that gives exactly the ids of the reference.

Per core, on English web text with this pattern: `tokenizers`, the reference, ~2 MB/s; tiktoken ~7. fastokens runs our
pattern through PCRE2 at ~35, where U+180E counts as white space, which is wrong; but patterns that it knows have a
hand-written scanner, at 90 to 140 (`python -m benchmarks.tokens` measures the three anew). GPT-4's pattern as Qwen cut it is one of
them, and differs from ours in one thing: there a number falls into single digits, here into groups of two. So the fast
route encodes with single digits and joins pairs of digit tokens afterwards, in a few array operations. Texts with numbers
beyond 0-9 (½, ², ٣), whose groups cannot be joined like this, go to tiktoken.

No library is trusted: each must reproduce the reference on texts made to be difficult and on texts of the very corpus,
else the next slower one is taken and the log says so.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.tokens.tokenizer import PATTERN, Tokenizer

log = logging.getLogger(__name__)

Texts: TypeAlias = "pa.Array | pa.ChunkedArray"
"""Strings as Arrow holds them, none of them null."""

Encode = Callable[[Texts], tuple[np.ndarray, np.ndarray]]
"""texts -> (ids uint16 (tokens,), offsets int64 (texts + 1,)): the tokens of text i are ids[offsets[i]:offsets[i + 1]]."""

SCANNED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""PATTERN with single digits, spelled as fastokens recognizes it: its alternatives match the same text as ours otherwise."""

TIKTOKEN_CHARACTERS = 100_000
"""Texts up to here go to tiktoken: in longer ones a run of spaces can overflow its stack, which ends the process."""

BATCH_BYTES = 1 << 24
"""Longer texts are encoded in pieces, this many bytes at a time: the libraries need about 20 times the size of a text."""
PIECE_BYTES = 1 << 16
"""Of a long text. Short enough for tiktoken, which encodes the few pieces that need it."""

CUT = re.compile(rb"[A-Za-z](?= [A-Za-z])")
"""A place before a blank that no match of PATTERN crosses: what takes a letter ends with letters."""

CHECKED_CHARACTERS = 5_000
"""A text of the sample is compared up to here: the reference is slow."""

DIFFICULT = (
    "",
    " ",
    "\n",
    "1",
    "12",
    "123 1234 12345 0007",
    "3.14159, 1,000,000; 2026-11-22T20:24:55Z 0x1F 10th v2.0.1",
    "1\n2\r\n3\t44 5  66   777",
    "½ 1½ 2²³ x² ①② ٣٤٥ १२३ 四五 Ⅷ 𝟙𝟚𝟛 7𝟠",
    "It's WE'LL they'Re 'tis o'clock ſ'ſ don’t",
    "a  b   c    \n\n\n   d\t\t\te \r\n\r\n f\u00a0\u00a0g\u2003\u3000h\u2028i\u0085j\x0b\x0ck",
    "trailing spaces   ",
    "\n\n  leading",
    "def f(x):\n\treturn {'a': [1, 22, 333]}  # ++i; !== && <|x|>\n",
    "Größe naïve Ελληνικά русский العربية עברית 中文字符 日本語 한국어 ไทย हिन्दी",
    "e\u0301 a\u0308\u0304 क्षि 👩🏽‍🚀👨‍👩‍👧‍👦🇩🇪 🤖🤖",
    "\x00\x01\x7f\x80\ufeff\ufffd\u200b\u200d\u180e \u180e\ue000\U0010fffd",
    "<|bos|> is a name <|user_start|><|output_end|>, <|bos|>12",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 20,
    "=" * 300 + "\n" + "-" * 77 + " " * 65 + "0" * 99,
    "http://example.org/a?b=c&d=%20e#f user@example.com C:\\dir\\file_1.txt $9.99 50% #42",
)


@dataclass(frozen=True)
class Encoder:
    """An encoder that passed the check, and the library it runs on."""

    library: str
    encode: Encode


def open_encoder(tokenizer: Tokenizer, sample: Sequence[str]) -> Encoder:
    """The fastest encoder whose ids equal the reference's on DIFFICULT and on `sample`, a few hundred texts of the corpus.

    Special tokens are never produced: their names in a text are text. Each candidate that is missing or wrong is logged.
    """
    texts = pa.array([*DIFFICULT, *(text[:CHECKED_CHARACTERS] for text in sample)], pa.large_string())
    ids, offsets = with_reference(tokenizer)(texts)
    for library, make in CANDIDATES.items():
        try:
            encode = make(tokenizer)
            got, at = encode(texts)
        except Exception as error:  # missing, or refuses the tokenizer: the next one is slower, not wrong
            log.warning("Encoding without %s, which fails here: %s", library, error)
            continue
        if np.array_equal(at, offsets) and np.array_equal(got, ids):
            return Encoder(library, in_pieces(encode))
        log.warning("Encoding without %s: its ids differ from those of tokenizers on this corpus.", library)
    return Encoder("tokenizers", in_pieces(with_reference(tokenizer)))


def in_pieces(encode: Encode, most: int = BATCH_BYTES, piece: int = PIECE_BYTES) -> Encode:
    """The same ids for texts of any length: one above `most` bytes is cut into pieces of `piece`, and batches hold about `most`."""

    def encode_all(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        if (pc.max(pc.binary_length(texts)).as_py() or 0) <= most:
            return encode(texts)
        ids, lengths = [], np.zeros(len(texts), np.int64)
        for places, batch in _batches(texts, most, piece):
            got, offsets = encode(pa.array(batch, pa.large_string()))
            ids.append(got)
            np.add.at(lengths, places, np.diff(offsets))
        return np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)])

    return encode_all


def _batches(texts: Texts, most: int, piece: int) -> Iterator[tuple[list[int], list[str]]]:
    """(place of its text, piece) of all pieces in order, batch by batch."""
    places: list[int] = []
    batch: list[str] = []
    room = most
    for place, text in enumerate(texts):
        content, start = memoryview(text.as_buffer()), 0
        while True:
            end = _cut(content, start, piece)
            if len(batch) and end - start > room:
                yield places, batch
                places, batch, room = [], [], most
            places.append(place)
            batch.append(str(content[start:end], "utf-8"))
            room -= end - start
            if end == len(content):
                break
            start = end
    yield places, batch


def _cut(content: memoryview, start: int, most: int) -> int:
    """Where the piece from `start` ends: at the first place from half of `most` on, or with the text."""
    if len(content) - start <= most:
        return len(content)
    found = CUT.search(content, start + most // 2)
    return found.end() if found else len(content)


def with_reference(tokenizer: Tokenizer) -> Encode:
    """`tokenizers` itself: right by definition, slow."""

    def encode(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        encodings = tokenizer.reference.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        return _flat([encoding.ids for encoding in encodings])

    return encode


def with_tiktoken(tokenizer: Tokenizer) -> Encode:
    """tiktoken with the tokenizer's merges as ranks."""
    import tiktoken

    encoding = tiktoken.Encoding(
        "fabrating", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks(), special_tokens=tokenizer.special_tokens
    )

    def encode(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        return _flat(
            [
                encoding.encode_ordinary(text) if len(text) <= TIKTOKEN_CHARACTERS else tokenizer.encode(text)
                for text in texts.to_pylist()
            ]
        )

    return encode


def with_fastokens(tokenizer: Tokenizer) -> Encode:
    """fastokens with SCANNED, digits joined afterwards; tiktoken for texts with other numbers."""
    import fastokens

    definition = json.loads(tokenizer.reference.to_str())
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": SCANNED}
    scanner = fastokens.Tokenizer.from_json_str(json.dumps(definition))
    join, exactly = DigitPairs(tokenizer.ranks()), with_tiktoken(tokenizer)

    def singly(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = scanner.encode_batch_flat(texts.to_pylist(), split_special_tokens=True)
        return np.frombuffer(ids, np.uint32).astype(np.uint16), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def encode(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        rare = pc.match_substring_regex(texts, other_numbers())
        if not pc.any(rare).as_py():
            return join(*singly(texts))
        ids, offsets = join(*singly(pc.if_else(rare, "", texts)))
        rare_ids, rare_offsets = exactly(texts.filter(rare))
        rare = rare.to_numpy(zero_copy_only=False)
        lengths = np.diff(offsets)
        lengths[rare] = np.diff(rare_offsets)
        from_rare = np.repeat(rare, lengths)
        merged = np.empty(len(from_rare), np.uint16)
        merged[from_rare], merged[~from_rare] = rare_ids, ids
        return merged, np.concatenate([[0], np.cumsum(lengths)])

    return encode


CANDIDATES: dict[str, Callable[[Tokenizer], Encode]] = {"fastokens": with_fastokens, "tiktoken": with_tiktoken}
"""Encoders that are faster than the reference, the fastest first."""


class DigitPairs:
    """Turns ids of texts whose ASCII numbers were cut into single digits into ids with groups of two, from the left.

    A digit is a piece of its own for the pre-split, so a run of digit tokens is a run of digits; and two bytes have only
    one possible merge, so a pair is either the one token of these two bytes or stays two.
    """

    def __init__(self, ranks: dict[bytes, int]):
        digits = [bytes([48 + digit]) for digit in range(10)]
        self.digit = np.full(65_536, 10, np.uint8)
        self.digit[[ranks[digit] for digit in digits]] = np.arange(10)
        self.pair = np.array([[ranks.get(a + b, -1) for b in digits] for a in digits])

    def __call__(self, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, offsets) as an `Encode` returns them, with pairs joined; the ids given are changed in place."""
        digit = self.digit[ids]
        places = np.flatnonzero(digit < 10)
        starts = np.zeros(len(ids) + 1, bool)
        starts[offsets] = True
        begins = np.ones(len(places), bool)
        begins[1:] = (np.diff(places) != 1) | starts[places[1:]]
        order = np.arange(len(places))
        within = order - np.maximum.accumulate(np.where(begins, order, 0))
        seconds = places[within % 2 == 1]
        pairs = self.pair[digit[seconds - 1], digit[seconds]]
        joined = seconds[pairs >= 0]
        ids[joined - 1] = pairs[pairs >= 0]
        keep = np.ones(len(ids), bool)
        keep[joined] = False
        return ids[keep], offsets - np.searchsorted(joined, offsets)


@cache
def other_numbers() -> str:
    """A regular expression (RE2) for one number beyond 0-9 (½, ², ٣, Ⅷ, ...), or one character newer than this Python.

    Such a number can be one of a group of two that tokens of single digits cannot be joined to.
    """
    beyond_ascii = (code for code in range(128, 0x40000) if _may_be_number(chr(code)))  # no script lies above
    spans = groupby(enumerate(beyond_ascii), key=lambda pair: pair[1] - pair[0])
    ranges = ([code for _, code in span] for _, span in spans)
    return "[" + "".join(rf"\x{{{codes[0]:x}}}-\x{{{codes[-1]:x}}}" for codes in ranges) + "]"


def _may_be_number(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "N" or category == "Cn"


def _flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(ids) for ids in lists], out=offsets[1:])
    flat = np.empty(offsets[-1], np.uint16)
    for ids, start in zip(lists, offsets, strict=False):
        flat[start : start + len(ids)] = ids
    return flat, offsets
