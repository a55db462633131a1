"""Scaling rules, schedules and counts, against numbers worked out by hand."""

import math

import pytest

from tasks.engines.builtin.model import config_for
from tasks.engines.builtin.schedule import flops_per_token, parameter_counts, peak_flops, plan_training, schedule
from tasks.errors import InputError


def test_counts_of_depth_20():
    config = config_for(20, 2048, "L", 32768)
    counts = parameter_counts(config)
    assert counts["lm_head"] == counts["wte"] == 32768 * 1280
    assert counts["value_embeds"] == 10 * 32768 * 1280
    assert counts["matrices"] == 20 * 12 * 1280**2 + 10 * 10 * 12
    assert counts["total"] == pytest.approx(896.5e6, rel=1e-4)
    assert flops_per_token(config) == 6 * (counts["scaling"] + 24) + 20 * 12 * 1280 * 2048
    windowed = config_for(20, 2048, "SSSL", 32768)
    assert flops_per_token(config) - flops_per_token(windowed) == 15 * 12 * 1280 * (2048 - 512)


def test_the_reference_depth_at_the_reference_ratio_is_not_scaled():
    config = config_for(12)
    tokens = 12 * parameter_counts(config)["scaling"]
    plan = plan_training(config, tokens=tokens)
    assert (plan.batch_tokens, plan.lr_scale) == (2**19, 1.0)
    assert plan.weight_decay == pytest.approx(0.28)
    assert plan.ratio == pytest.approx(12)
    assert plan.iterations == tokens // 2**19 and plan.tokens == plan.iterations * 2**19


def test_a_deeper_model_takes_larger_batches():
    config = config_for(24)
    scaling = parameter_counts(config)["scaling"]
    factor = scaling / parameter_counts(config_for(12))["scaling"]
    plan = plan_training(config, tokens=12 * scaling)
    assert plan.batch_tokens == 2 ** round(math.log2(2**19 * factor**0.383)) == 2**20
    assert plan.lr_scale == pytest.approx(math.sqrt(2))
    assert plan.weight_decay == pytest.approx(0.28 * math.sqrt(2) / factor)


def test_rows_are_the_budget():
    config = config_for(4, 512)
    plan = plan_training(config, rows=1000, batch_tokens=8 * 512)
    assert (plan.iterations, plan.tokens) == (125, 125 * 8 * 512)
    assert plan_training(config_for(4, 500), rows=100_000).batch_tokens % 500 == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no budget"),
        ({"rows": 10, "tokens": 11 * 512}, "needs 11 packed rows but the arm has 10"),
        ({"rows": 10, "batch_tokens": 700}, "batch_tokens 700 is not a multiple of the sequence length 512"),
        ({"rows": 10, "batch_tokens": 512 * 16}, "does not fill one batch of 8,192"),
    ],
)
def test_budgets_that_cannot_be(wrong, message):
    with pytest.raises(InputError, match=message):
        plan_training(config_for(4, 512), **wrong)


def test_rates_over_a_run():
    plan = plan_training(config_for(4, 512), rows=8000, batch_tokens=4 * 512)
    rates = [schedule(step, plan) for step in range(plan.iterations)]
    assert plan.iterations == 2000
    assert rates[0].lr_scale == 1 / 40 and rates[39].lr_scale == rates[700].lr_scale == 1.0
    assert rates[1350].lr_scale == pytest.approx(0.5 + 0.5 * 0.05)
    assert rates[1999].lr_scale == pytest.approx(0.05, abs=1e-3)
    assert rates[0].momentum == 0.85 and rates[200].momentum == pytest.approx(0.91)
    assert rates[400].momentum == rates[699].momentum == 0.97
    assert rates[1999].momentum == pytest.approx(0.90, abs=1e-4)
    assert rates[0].weight_decay == plan.weight_decay
    assert rates[1000].weight_decay == pytest.approx(plan.weight_decay / 2)
    assert rates[1999].weight_decay < 1e-5


def test_peaks_by_device_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA GeForce RTX 4090") is None
