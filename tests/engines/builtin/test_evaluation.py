"""Every document's tokens are scored exactly once, in a context of that document alone."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import EncodedHoldout, batches, evaluate
from tasks.engines.builtin.model import GPT
from tasks.records.scaling import ModelShape

BOS = 999
ALONE = World(0, 1, torch.device("cpu"))


def make_holdout(lengths, bos=BOS, tokens=None):
    """Documents whose tokens are numbered from 1 through all of them."""
    lengths = np.array(lengths, dtype=np.int64)
    total = int(lengths.sum())
    documents = pa.table(
        {
            "document": np.arange(len(lengths)),
            "cluster": np.arange(len(lengths), dtype=np.int32),
            "score": np.linspace(0, 1, len(lengths)),
            "decile": (np.arange(len(lengths)) % 10).astype(np.int8),
            "bytes": lengths * 3,
            "source": ["s"] * len(lengths),
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
        }
    )
    return EncodedHoldout(np.arange(1, total + 1, dtype="<u2") if tokens is None else tokens, documents, bos)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=12),
    sequence_length=st.sampled_from([4, 8, 16, 20]),
    batch_tokens=st.integers(1, 200),
)
def test_every_token_once_and_never_beside_another_document(lengths, sequence_length, batch_tokens):
    holdout = make_holdout(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    scored = []

    def losses(inputs, targets):
        assert inputs.shape == targets.shape
        assert inputs.shape[1] <= sequence_length
        assert inputs.shape[0] == 1 or inputs.numel() <= batch_tokens
        for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert x[0] == BOS
            wanted = [t for t in y if t != -1]
            if not wanted:  # a row to spare
                continue
            seen = {owner[t - 1] for t in [*wanted, *(t for t in x if t != BOS)]}
            assert len(seen) == 1
            for position, target in enumerate(y):
                if target != -1 and position:  # what comes before a target is the token before it
                    assert x[position] == target - 1
            scored.extend(wanted)
        return torch.where(targets >= 0, targets.float(), 0.0)

    nats = evaluate(losses, holdout, sequence_length, batch_tokens, ALONE)
    assert sorted(scored) == list(range(1, sum(lengths) + 1))
    expected = [int(np.arange(1, len(owner) + 1)[owner == d].sum()) for d in range(len(lengths))]
    assert nats.tolist() == expected


def test_batches_have_few_shapes_and_little_padding():
    dice = np.random.default_rng(0)
    windows = make_holdout(dice.integers(1, 200, 300)).windows(64)
    plan = batches(windows, 64, 256)
    assert {shape for _, shape in plan} == {(4, 64), (8, 32), (16, 16), (32, 8)}
    assert [window for chosen, _ in plan for window in chosen] == list(range(len(windows)))
    for chosen, (rows, length) in plan:
        assert len(chosen) <= rows
        assert (windows.length[chosen.start : chosen.stop] <= length).all()
        assert length == 8 or (windows.length[chosen.start : chosen.stop] > length // 2).all()


def test_continuations_see_a_quarter_of_a_sequence_before_them():
    windows = make_holdout([20]).windows(8)
    order = np.argsort(windows.start)
    assert windows.start[order].tolist() == [0, 8, 14]
    assert windows.stop[order].tolist() == [8, 14, 20]
    assert windows.context[order].tolist() == [0, 2, 2]


def test_equal_to_one_document_at_a_time():
    """Sorted, padded, batched evaluation gives each document what a plain pass over it alone gives."""
    model = GPT(ModelShape.of_depth(1, 32, "L", 300))
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    dice = np.random.default_rng(0)
    lengths = [3, 32, 31, 1, 17, 8]
    tokens = dice.integers(0, 299, sum(lengths)).astype("<u2")
    holdout = make_holdout(lengths, bos=299, tokens=tokens)
    with torch.no_grad():
        nats = evaluate(lambda x, y: model(x, y, reduction="none"), holdout, 32, 64, ALONE)
        for document, (length, offset) in enumerate(zip(lengths, np.cumsum(lengths) - lengths, strict=True)):
            text = torch.from_numpy(tokens[offset : offset + length].astype(np.int64))
            inputs = torch.cat([torch.tensor([299]), text[:-1]])
            alone = model(inputs[None], text[None], reduction="sum").item()
            assert nats[document] == pytest.approx(alone, rel=1e-5)


def test_a_request_to_stop_is_obeyed():
    calls = []

    def losses(inputs, targets):
        calls.append(len(inputs))
        return torch.zeros(inputs.shape)

    assert evaluate(losses, make_holdout([8] * 100), 8, 8, ALONE, stop=lambda: len(calls) >= 10) is None
    assert len(calls) < 20
