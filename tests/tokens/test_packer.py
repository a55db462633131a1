"""Best-fit packing: against a plain reference, and what must hold whatever is packed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.tokens import packer as packing
from tasks.tokens.packer import CropPacker, SplitPacker

BOS = 9_999


def plain_packing(documents: list[list[int]], width: int, batch: int, buffer: int) -> tuple[list[list[int]], int, int]:
    """The contract, word by word, over lists: (rows, cropped tokens, dropped tokens)."""
    waiting = [[BOS, *document] for document in documents]
    held: list[list[int]] = []
    rows, row, cropped = [], [], 0
    while True:
        while len(held) < buffer and waiting:
            held, waiting = held + waiting[:batch], waiting[batch:]
        if not held:
            return rows, cropped, len(row)
        left = width - len(row)
        lengths = [len(document) for document in held]
        fitting = [length for length in lengths if length <= left]
        taken = held[lengths.index(max(fitting) if fitting else min(lengths))]
        held = [document for document in held if document is not taken]
        row = row + taken[:left]
        cropped += max(0, len(taken) - left)
        if len(row) == width:
            rows, row = [*rows, row], []


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(document) for document in documents]
    ids = np.array([token for document in documents for token in document], np.uint16)
    return ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def numbered(lengths: list[int]) -> list[list[int]]:
    """Documents of the given lengths; each token says which one it is from, so that a mix-up shows."""
    return [[number % 9_000] * length for number, length in enumerate(lengths)]


def whole(packer, documents: list[list[int]]) -> np.ndarray:
    """All rows of the documents."""
    return np.concatenate([packer.push(*flat(documents)).rows, packer.flush().rows])


lengths_of_documents = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 90)), max_size=600)


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 60))
def test_equals_the_plain_packing(lengths, sequence_length, buffer):
    documents = numbered(lengths)
    packer = CropPacker(sequence_length, BOS, buffer)
    rows = whole(packer, documents)
    expected, cropped, dropped = plain_packing(documents, sequence_length + 1, 128, buffer)
    assert rows.tolist() == expected and rows.dtype == np.uint16
    assert (packer.cropped_tokens, packer.dropped_tokens, packer.rows) == (cropped, dropped, len(expected))
    assert (packer.documents, packer.tokens) == (len(lengths), sum(lengths) + len(lengths))


def test_a_full_size_buffer_equals_the_plain_packing():
    documents = numbered((np.random.default_rng(5).pareto(1.2, 3_000) * 60).astype(int).clip(0, 5_000).tolist())
    packer = CropPacker(256, BOS)
    rows = whole(packer, documents)
    expected, cropped, _ = plain_packing(documents, 257, 128, 1_000)
    assert rows.tolist() == expected
    assert packer.cropped_tokens == cropped > 0


def plain_splitting(documents: list[list[int]], length: int) -> list[list[int]]:
    stream = [token for document in documents for token in [BOS, *document]]
    return [stream[start : start + length + 1] for start in range(0, len(stream) - length, length)]


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 200), st.sampled_from([1, 7, packing.STEP]))
def test_splitting_loses_nothing_and_predicts_each_token_once(lengths, sequence_length, batch, step):
    documents = numbered(lengths)
    packer = SplitPacker(sequence_length, BOS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "STEP", step)
        parts = [packer.push(*flat(documents[i : i + batch])) for i in range(0, len(documents), batch)]
    parts.append(packer.flush())
    rows = np.concatenate([part.rows for part in parts])
    assert rows.dtype == np.uint16
    assert rows.tolist() == plain_splitting(documents, sequence_length)
    assert (packer.documents, packer.rows, packer.cropped_tokens) == (len(documents), len(rows), 0)
    assert packer.tokens == sum(lengths) + len(lengths)
    assert 0 <= packer.dropped_tokens <= sequence_length
    assert packer.tokens - packer.dropped_tokens == (len(rows) * sequence_length + 1 if len(rows) else 0)


PACKERS = [lambda length: CropPacker(length, BOS, 7), lambda length: SplitPacker(length, BOS)]


@settings(max_examples=40, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.sampled_from(PACKERS), st.integers(1, 200))
def test_pieces_say_whose_tokens_a_row_holds(lengths, sequence_length, make, batch):
    documents = numbered(lengths)
    packer = make(sequence_length)
    parts = [packer.push(*flat(documents[i : i + batch])) for i in range(0, len(documents), batch)] + [packer.flush()]
    begun: list[int] = []
    for part in parts:
        assert (part.pieces[:, 0] < len(part.rows)).all()
        held = np.bincount(part.pieces[:, 0], part.pieces[:, 2], len(part.rows))
        assert set(held.tolist()) <= {sequence_length, sequence_length + 1}
        for number, row in enumerate(part.rows):
            tokens = row[-int(held[number]) :].tolist()
            for _, document, count, begins in part.pieces[part.pieces[:, 0] == number].tolist():
                piece, tokens = tokens[:count], tokens[count:]
                assert set(piece) <= {document % 9_000, BOS}
                if begins:
                    begun.append(document)
            assert tokens == []
    assert len(set(begun)) == len(begun) <= packer.documents


@settings(max_examples=40, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.sampled_from(PACKERS), st.integers(0, 4))
def test_a_restored_packer_goes_on_as_if_nothing_had_happened(lengths, sequence_length, make, cut):
    documents = numbered(lengths)
    batches = [documents[start : start + 128] for start in range(0, len(documents), 128)]
    straight = make(sequence_length)
    expected = [straight.push(*flat(batch)) for batch in batches] + [straight.flush()]

    first, second = make(sequence_length), make(sequence_length)
    found = [first.push(*flat(batch)) for batch in batches[:cut]]
    second.restore(first.state())
    found += [second.push(*flat(batch)) for batch in batches[cut:]] + [second.flush()]
    for one, other in zip(found, expected, strict=True):
        assert one.rows.tolist() == other.rows.tolist() and one.pieces.tolist() == other.pieces.tolist()
    counters = ("documents", "tokens", "rows", "cropped_tokens", "dropped_tokens", "dropped_documents")
    assert [getattr(second, name) for name in counters] == [getattr(straight, name) for name in counters]


def test_a_document_longer_than_a_row_loses_its_rest_or_goes_on():
    document = [[1, 2, 3, 4, 5, 6]]
    packer = CropPacker(3, BOS, buffer=1)
    assert packer.push(*flat(document)).rows.tolist() == [[BOS, 1, 2, 3]]
    assert packer.cropped_tokens == 3
    packed = SplitPacker(3, BOS).push(*flat(document))
    assert packed.rows.tolist() == [[BOS, 1, 2, 3], [3, 4, 5, 6]]
    assert packed.pieces.tolist() == [[0, 0, 3, 1], [1, 0, 3, 0]]


@pytest.mark.parametrize("make", PACKERS)
def test_a_document_may_have_any_length_and_the_packer_be_saved_with_it(make):
    lengths = [3, 9_000_000, 5]
    ids, offsets = np.zeros(sum(lengths), np.uint16), np.cumsum([0, *lengths])
    straight, restored = make(2_048), make(2_048)
    expected = [*straight.push(ids, offsets).rows, *straight.flush().rows]
    found = [*restored.push(ids, offsets).rows]
    state, restored = restored.state(), make(2_048)
    restored.restore(state)
    found += [*restored.flush().rows]
    assert np.array_equal(found, expected)
    assert restored.tokens == sum(lengths) + 3 == straight.tokens
