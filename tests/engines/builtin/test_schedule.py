"""Rates over a training, against numbers worked out by hand."""

import pytest

from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training


def test_rates_over_a_run():
    plan = plan_training(ModelShape.of_depth(4, 512), rows=8000, batch_tokens=4 * 512)
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
