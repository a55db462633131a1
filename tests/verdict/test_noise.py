"""The benchmark of noise between replicates, on a CPU with a text of random tokens."""

import json
import math

import numpy as np
import pytest
import torch

from benchmarks.verdict import noise, packed
from tasks.engines.builtin.adamw import AdamW


def test_a_recipe_is_read_from_its_name():
    assert noise.Recipe.parse("upstream") == noise.Recipe("upstream")
    recipe = noise.Recipe.parse("quiet+factor=0.1+backout_lambda=0+epsilon=1e-2+muon=0.5+adam=2+wte=3+rise=80+fp32")
    upstream = AdamW(1.0, 0.8, 0.95, 0.0)
    assert (recipe.base, recipe.muon, recipe.rise, recipe.precision) == ("quiet", 0.5, 80, "fp32")
    assert recipe.group("smear_lambda", upstream) == upstream._replace(lr=0.1, epsilon=0.01)
    assert recipe.group("backout_lambda", upstream) == upstream._replace(lr=0.0, epsilon=0.01)
    assert recipe.group("lm_head.weight", upstream) == upstream._replace(lr=2.0)
    assert recipe.group("transformer.wte.weight", upstream) == upstream._replace(lr=6.0)
    with pytest.raises(ValueError, match="no recipe louder"):
        noise.Recipe.parse("quiet+louder")


@pytest.mark.parametrize(("count", "low", "high"), [(4, 0.5665, 3.7285), (8, 0.6612, 2.0353), (12, 0.7084, 1.6979)])
def test_intervals_of_a_deviation_are_those_of_chi_square_tables(count, low, high):
    assert noise.deviation_interval(1.0, count) == pytest.approx((low, high), rel=0.02)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other take longer than models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two arms of random tokens in documents of 20, and a holdout."""
    path, tokens = (
        tmp_path_factory.mktemp("packed"),
        np.random.default_rng(1).integers(1, 300, (2, 600)).astype(np.uint16),
    )
    tokens[:, ::20] = 0
    for name, stream in zip(("top", "all"), tokens, strict=True):
        np.savez(path / f"{name}.npz", tokens=stream)
    np.savez(path / "holdout.npz", tokens=tokens[0, :100], ends=[40, 100], bytes=[100, 150], vocab=300)
    return path


SMALL = ["--depth", "1", "--device", "cpu", "--sequence-length", "16", "--batch-tokens", "64", "--tokens", "640"]


def runs_of(folder, *words):
    """The runs that the command writes."""
    out = folder / "runs.jsonl"
    out.unlink(missing_ok=True)
    noise.main(["train", str(folder), *SMALL, "--out", str(out), *words])
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_replicates_are_trained_scored_and_compared(folder, capsys):
    words = ["--recipes", "fp32:1-3", "fp32+factor=0", "--arms", "top", "all/crop", "--seeds", "2", "--vary", "both"]
    runs = runs_of(folder, *words)
    assert [(run["recipe"], run["arm"], run["seed"]) for run in runs] == [
        (r, a, s + 1) for r, n in (("fp32", 3), ("fp32+factor=0", 2)) for a in ("top", "all/crop") for s in range(n)
    ]
    assert all(math.isfinite(run["bpb"]) and len(run["curve"]) == 10 for run in runs)
    assert runs[6]["scalars"]["backout_lambda"] == [0.2] != runs[0]["scalars"]["backout_lambda"]
    printed = capsys.readouterr().out
    assert ", both | fp32 | top | 3 |" in printed and "| fp32 top | fp32 all/crop | 3 |" in printed
    assert "fp32 top | fp32+factor=0 all/crop" not in printed


def test_a_seed_draws_the_part_that_is_asked_for(folder):
    words = ["--recipes", "fp32", "--arms", "all", "--seeds", "2", "--vary"]
    first, second = runs_of(folder, *words, "lm_head")
    assert first["curve"] != second["curve"] and first["curve"][0] == pytest.approx(second["curve"][0], abs=0.01)
    assert not runs_of(folder, *words, "nothing")


def test_cropped_rows_begin_with_documents():
    tokens = np.concatenate([[0, *range(1, length)] for length in (20, 7, 12, 33)]).astype(np.uint16)
    rows = packed.cropped(tokens, 15)
    assert rows.shape[1] == 16 and (rows[:, 0] == 0).all()
    assert sum((row == 0).sum() for row in rows) <= 4
