"""Samples: greedy, without special tokens, from documents of low to high score."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from tasks.engines.builtin.evaluation import EncodedHoldout
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.sample import generate, sample
from tasks.records.layout import PoolFolder
from tasks.records.scaling import ModelShape
from tasks.spec import Pool
from tests.engines.builtin.conftest import LENGTH, POOL


def make_model():
    model = GPT(ModelShape.of_depth(1, LENGTH, "L", 300))
    model.init_weights(3)
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
        model.transformer["h"][0].mlp.c_proj.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def test_equal_to_one_token_at_a_time_without_padding():
    model = make_model()
    prompts = torch.tensor([[299, 5, 7], [299, 80, 81]])
    written = generate(model, prompts, 12, banned=[299, 10], padded=20)
    tokens = prompts
    for _ in range(12):
        following = model(tokens)[:, -1].clone()
        following[:, [299, 10]] = -torch.inf
        tokens = torch.cat([tokens, following.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(written, tokens)
    assert len(set(written[0, 3:].tolist())) > 1


@torch.no_grad()
def test_documents_from_the_lowest_to_the_highest_score(root):
    holdout = EncodedHoldout.of(root.open(f"pools/{POOL}/evaluation"), root.open(PoolFolder(POOL).strata(Pool().score)))
    tokenizer = root.path(f"pools/{POOL}/tokenizer/tokenizer.json")
    samples = sample(make_model(), holdout, tokenizer, LENGTH, torch.device("cpu"))
    assert len(samples) == 4
    scores = [entry["score"] for entry in samples]
    assert scores == sorted(scores)
    assert len({entry["document"] for entry in samples}) == 4
    assert "<|bos|>" not in json.dumps(samples)


@torch.no_grad()
def test_documents_without_a_score_come_last_and_have_none(root):
    holdout = EncodedHoldout.of(root.open(f"pools/{POOL}/evaluation"), root.open(PoolFolder(POOL).strata(Pool().score)))
    scores = holdout.documents["score"].to_numpy()
    unrated = np.where(scores > np.median(scores), np.nan, scores)
    place = holdout.documents.schema.get_field_index("score")
    holdout = replace(holdout, documents=holdout.documents.set_column(place, "score", pa.array(unrated)))
    tokenizer = root.path(f"pools/{POOL}/tokenizer/tokenizer.json")
    found = [entry["score"] for entry in sample(make_model(), holdout, tokenizer, LENGTH, torch.device("cpu"))]
    rated = [score for score in found if score is not None]
    assert found == [*sorted(rated), *[None] * (4 - len(rated))] and 0 < len(rated) < 4
