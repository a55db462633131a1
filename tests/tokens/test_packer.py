"""Best-fit packing: against a plain reference, and what must hold whatever is packed."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.tokens.packer import Packer

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


lengths_of_documents = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 90)), max_size=600)


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 60))
def test_equals_the_plain_packing(lengths, sequence_length, buffer):
    documents = numbered(lengths)
    packer = Packer(sequence_length, BOS, buffer)
    rows = np.concatenate([packer.push(*flat(documents)), packer.flush()])
    expected, cropped, dropped = plain_packing(documents, sequence_length + 1, 128, buffer)
    assert rows.tolist() == expected
    assert (packer.cropped_tokens, packer.dropped_tokens, packer.rows) == (cropped, dropped, len(expected))


def test_a_full_size_buffer_equals_the_plain_packing():
    documents = numbered((np.random.default_rng(5).pareto(1.2, 3_000) * 60).astype(int).clip(0, 5_000).tolist())
    packer = Packer(256, BOS)
    rows = np.concatenate([packer.push(*flat(documents)), packer.flush()])
    expected, cropped, _ = plain_packing(documents, 257, 128, 1_000)
    assert rows.tolist() == expected
    assert packer.cropped_tokens == cropped > 0


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 60))
def test_rows_begin_with_bos_and_tokens_add_up(lengths, sequence_length, buffer):
    packer = Packer(sequence_length, BOS, buffer)
    rows = np.concatenate([packer.push(*flat(numbered(lengths))), packer.flush()])
    assert rows.shape == (packer.rows, sequence_length + 1)
    assert rows.dtype == np.uint16
    assert (rows[:, 0] == BOS).all()
    assert packer.documents == len(lengths)
    assert packer.tokens == sum(lengths) + len(lengths)
    assert packer.tokens == rows.size + packer.cropped_tokens + packer.dropped_tokens
    assert 0 <= packer.dropped_tokens <= sequence_length


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 60))
def test_every_piece_is_the_beginning_of_one_document(lengths, sequence_length, buffer):
    documents = [[number % 9_000, *range(length - 1)] for number, length in enumerate(lengths) if length]
    packer = Packer(sequence_length, BOS, buffer)
    rows = np.concatenate([packer.push(*flat(documents)), packer.flush()]).tolist()
    pieces = [piece.split(f" {BOS} ") for piece in (" " + " ".join(map(str, row)) + " " for row in rows)]
    unused = {f"{document[0]}": " ".join(map(str, document)) for document in documents}
    for piece in (piece.strip() for row in pieces for piece in row if piece.strip() not in ("", str(BOS))):
        document = unused.pop(piece.split(" ")[0])
        assert f"{document} ".startswith(f"{piece} ")


@settings(max_examples=40, deadline=None)
@given(lengths_of_documents, st.integers(1, 40), st.integers(1, 60), st.integers(0, 4))
def test_a_restored_packer_goes_on_as_if_nothing_had_happened(lengths, sequence_length, buffer, cut):
    documents = numbered(lengths)
    batches = [documents[start : start + 128] for start in range(0, len(documents), 128)]
    straight = Packer(sequence_length, BOS, buffer)
    expected = [straight.push(*flat(batch)) for batch in batches] + [straight.flush()]

    first, second = Packer(sequence_length, BOS, buffer), Packer(sequence_length, BOS, buffer)
    rows = [first.push(*flat(batch)) for batch in batches[:cut]]
    second.restore(first.state())
    rows += [second.push(*flat(batch)) for batch in batches[cut:]] + [second.flush()]
    assert np.concatenate(rows).tolist() == np.concatenate(expected).tolist()
    assert second.tokens == straight.tokens
    assert second.cropped_tokens == straight.cropped_tokens


def test_a_document_longer_than_a_row_loses_its_rest():
    packer = Packer(3, BOS, buffer=1)
    rows = packer.push(*flat([[1, 2, 3, 4, 5, 6]]))
    assert rows.tolist() == [[BOS, 1, 2, 3]]
    assert packer.cropped_tokens == 3
