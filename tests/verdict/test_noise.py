"""The benchmark of noise between replicates, on a CPU with a text of random tokens."""

import json
import math

import numpy as np
import pytest

from benchmarks.verdict import noise
from tasks.engines.builtin.optimizer import Scalars


def test_a_recipe_is_read_from_its_name():
    assert noise.Recipe.parse("upstream") == noise.Recipe("upstream")
    recipe = noise.Recipe.parse("exact+scaled+factor=0.1+backout_lambda=0+epsilon=1e-2+warmup=80")
    wanted = Scalars(factor=0.1, factors={"backout_lambda": 0.0}, scaled=True, epsilon=0.01, warmup=80)
    assert recipe.exact and recipe.scalars == wanted
    with pytest.raises(ValueError, match="no recipe louder"):
        noise.Recipe.parse("exact+louder")


@pytest.mark.parametrize(("count", "low", "high"), [(4, 0.5665, 3.7285), (8, 0.6612, 2.0353), (12, 0.7084, 1.6979)])
def test_intervals_of_a_deviation_are_those_of_chi_square_tables(count, low, high):
    assert noise.deviation_interval(1.0, count) == pytest.approx((low, high), rel=0.02)


def test_replicates_are_trained_scored_and_compared(tmp_path, capsys):
    tokens = np.random.default_rng(1).integers(0, 300, 600).astype(np.uint16)
    np.save(tmp_path / "stream.npy", tokens)
    ends, size = np.array([40, 100]), np.array([100, 150])
    np.savez(tmp_path / "holdout.npz", tokens=tokens[:100], ends=ends, bytes=size, vocab=300)
    out = tmp_path / "runs.jsonl"
    words = [
        "train",
        str(tmp_path),
        "--recipes",
        "fp32:3",
        "fp32+factor=0",
        "--seeds",
        "3",
        "--depth",
        "2",
        "--device",
        "cpu",
    ]
    words += ["--sequence-length", "16", "--batch-tokens", "64", "--tokens", "640", "--vary", "both", "--out", str(out)]
    noise.main(words)
    runs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(run["recipe"], run["seed"]) for run in runs] == [
        (r, s) for r in ("fp32", "fp32+factor=0") for s in (1, 2, 3)
    ]
    assert all(math.isfinite(run["bpb"]) and len(run["curve"]) == 10 for run in runs)
    assert runs[3]["scalars"]["backout_lambda"] == [0.2] != runs[0]["scalars"]["backout_lambda"]
    printed = capsys.readouterr().out
    assert "| fp32 | 3 |" in printed and "| fp32 | fp32+factor=0 | 3 |" in printed
