"""Every encoder gives the ids of the reference, on text made to be difficult and on any text."""

import functools
import logging
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.tokens.encode import CANDIDATES, DIFFICULT, DigitPairs, in_pieces, open_encoder, with_reference
from tasks.tokens.tokenizer import Tokenizer
from tasks.tokens.train import train_reference
from tests.tokens.conftest import make_documents

NUMBERS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "N"]


@pytest.fixture(scope="module")
def rich_tokenizer(tmp_path_factory):
    """A tokenizer with merges of digits, of numbers beyond ASCII, of spaces and of several scripts."""
    texts = [*DIFFICULT, *make_documents(300, seed=20), "٢٠٢٦ ٣٤ ½½ x²³ ①②③ १२३४ 1½ 2² " * 200, "\n\n    \t\t  " * 99]
    reference = train_reference(iter([texts + [f"{n} {n * 7}" for n in range(3_000)]]), 800)
    path = tmp_path_factory.mktemp("rich") / "tokenizer.json"
    reference.save(str(path))
    return Tokenizer(path, reference)


@pytest.fixture(scope="module")
def reference(rich_tokenizer):
    """What the reference makes of a tuple of texts: computed once for all encoders."""
    encode = with_reference(rich_tokenizer)
    return functools.cache(lambda texts: encode(pa.array(texts, pa.large_string())))


@pytest.fixture(scope="module", params=CANDIDATES)
def encoders(request, rich_tokenizer, reference):
    return CANDIDATES[request.param](rich_tokenizer), reference


def assert_equal_ids(encoders, texts):
    faster, reference = encoders
    (ids, offsets), (expected, bounds) = faster(pa.array(texts, pa.large_string())), reference(tuple(texts))
    assert np.array_equal(offsets, bounds)
    assert np.array_equal(ids, expected)
    assert ids.dtype == np.uint16
    assert offsets.dtype == np.int64


def test_difficult_texts(encoders):
    assert_equal_ids(encoders, list(DIFFICULT))


def test_ordinary_texts(encoders):
    assert_equal_ids(encoders, make_documents(300, seed=21))


def test_nothing(encoders):
    assert_equal_ids(encoders, [])
    assert_equal_ids(encoders, [""])
    assert_equal_ids(encoders, ["", "1", "", "", "2", "3", ""])


def test_every_kind_of_character_and_every_number(encoders):
    ideographs, surrogates, private = range(0x4E00, 0xA000), range(0xD800, 0xE000), range(0xE000, 0xF900)
    left_out = {*ideographs[99:], *range(0xAC00, 0xD7A0)[99:], *surrogates, *private[99:]}
    characters = [chr(code) for code in range(0x10000) if code not in left_out] + NUMBERS
    assert_equal_ids(encoders, [f"a{c}b {c}{c}1{c}23 {c}\n{c} '{c}s  {c}" for c in characters])


pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.text("0123456789", max_size=9),
    st.text(st.sampled_from(["0", "7", "½", "²", "٣", "४", "Ⅷ", "①", "𝟙", ".", ",", " "]), max_size=8),
    st.text(" \t\n\r\u00a0\u2003\u3000\u2028\x0b\x0c\x85", max_size=6),
    st.sampled_from(
        ["'s", "'LL", "’ve", "'ſ", "don't", "<|bos|>", "👩🏽‍🚀", "🇩🇪", "e\u0301", "def f(x):\n\t", "---", "!?\n\n"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(pieces, max_size=8).map("".join), max_size=6))
def test_any_texts(encoders, texts):
    assert_equal_ids(encoders, texts)


def test_texts_longer_than_tiktoken_can_take(encoders):
    assert_equal_ids(encoders, [" " * 1_100_000 + "½", "0" * 300_001, "é1" * 60_000])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([*DIFFICULT[1:], "a", "I", " b", " it's", "'S x", " C d", "é f", "\u0301 g h"])).map(
            "".join
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 60),
)
def test_long_texts_in_pieces_have_the_same_ids(rich_tokenizer, texts, most):
    reference = with_reference(rich_tokenizer)
    column = pa.array(texts, pa.large_string())
    (ids, offsets), (expected, bounds) = in_pieces(reference, most, most)(column), reference(column)
    assert ids.tolist() == expected.tolist() and offsets.tolist() == bounds.tolist()


def test_pieces_bound_what_is_encoded_at_a_time():
    seen = []

    def encode(texts):
        seen.append(sum(len(text) for text in texts.to_pylist()))
        return np.zeros(len(texts), np.uint16), np.arange(len(texts) + 1)

    ids, offsets = in_pieces(encode, 1_000, 400)(
        pa.array(["word " * 5_000, "", "x" * 10, "word " * 300], pa.large_string())
    )
    assert max(seen) <= 1_000 and sum(seen) == 26_510
    assert offsets[-1] == len(ids) and np.diff(offsets)[1:3].tolist() == [1, 1]


def test_pairs_are_cut_from_the_left_and_never_across_documents():
    join = DigitPairs({**{bytes([48 + d]): d for d in range(10)}, b"12": 20, b"23": 21, b"31": 22})
    ids = np.array([1, 2, 3, 1, 2, 9, 50, 1, 2, 1, 2, 3], np.uint16)  # "12312" "9" then "x121", "", "23"
    joined, offsets = join(ids, np.array([0, 5, 6, 10, 10, 12]))
    assert joined.tolist() == [20, 22, 2, 9, 50, 20, 1, 21]
    assert offsets.tolist() == [0, 3, 4, 7, 7, 8]


def test_the_fastest_is_taken(rich_tokenizer):
    assert open_encoder(rich_tokenizer, make_documents(20, seed=22)).library == "fastokens"


def test_a_wrong_encoder_is_left_out_and_named(rich_tokenizer, monkeypatch, caplog):
    def wrong(tokenizer):
        right = with_reference(tokenizer)

        def almost(texts):
            ids, offsets = right(texts)
            ids[-1] ^= 1
            return ids, offsets

        return almost

    monkeypatch.setitem(CANDIDATES, "fastokens", wrong)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(rich_tokenizer, ["some text"])
    assert encoder.library == "tiktoken"
    assert "without fastokens: its ids differ" in caplog.text


def test_without_faster_libraries_the_reference_remains(rich_tokenizer, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(rich_tokenizer, ["some text"])
    assert encoder.library == "tokenizers"
    ids, _ = encoder.encode(pa.array(["some 2026 text"]))
    assert ids.tolist() == rich_tokenizer.encode("some 2026 text")
    assert caplog.text.count("which fails here") == 2
