import pytest

from tasks.errors import InputError
from tasks.records.cost import (
    batch_tokens,
    checkpoint_bytes,
    estimate,
    flops_per_token,
    model_parameters,
    rates,
    total,
)
from tasks.records.ledger import LedgerEntry
from tasks.reports.artifacts import estimate_markdown
from tasks.spec import Experiment, Training


def test_d20_is_counted_as_published():
    assert model_parameters(20, 32_768) == pytest.approx(896.5e6, rel=1e-4)
    peak, measured = 989e12, 156_800
    assert flops_per_token(20, 2_048, "L", 32_768) * measured / peak == pytest.approx(0.514, abs=0.001)


def test_short_windows_cost_less_and_the_last_layer_is_long():
    full = flops_per_token(4, 2_048, "L", 1_024)
    assert flops_per_token(4, 2_048, "SSSL", 1_024) == full - 3 * 12 * 256 * (2_048 - 512)
    assert flops_per_token(4, 2_048, "S", 1_024) == flops_per_token(4, 2_048, "SSSL", 1_024)


def test_batch_follows_the_scaling_rule_or_the_parameter():
    scaling_12 = 12 * 768**2 * 12 + 32_768 * 768
    assert batch_tokens(Training(), 12 * scaling_12, 32_768) == 2**19
    assert batch_tokens(Training(batch_tokens=4_096), 10**9, 32_768) == 4_096


def test_the_table_gives_its_own_figure_back_with_its_source():
    training = Training(engine="nanochat", window_pattern="L", dollars_per_gpu_hour=2.0)
    cost = estimate(training, 1_568_000_000, runs=3)
    row = rates()["throughput"][0]
    assert cost.tokens_per_second == pytest.approx(156_800)
    assert cost.hours == pytest.approx((10_000 + row["start_seconds"]) / 3600)
    assert cost.gpu_hours == pytest.approx(3 * cost.hours)
    assert cost.dollars == pytest.approx(2 * cost.gpu_hours)
    assert cost.source == row["source"]


def own_run(**training):
    whole = Experiment(training=Training(**training))
    names = {"run": "top16-d20-s1-x", "arm": "top16", "arm_id": "top16-1", "pool_id": "pool-1", "seed": 1}
    alike = {field: getattr(whole.training, field) for field in ("depth", "engine", "precision")}
    measured = {"device": "NVIDIA H100 80GB HBM3", "tokens_per_second": 200_000.0}
    return LedgerEntry(**names, **alike, **measured, state="completed", experiment=whole, attempts=())


def test_own_runs_refine_the_table_and_eight_gpus_are_eight_times_one():
    cost = estimate(Training(gpus=8), 10**9, ledger=[own_run()])
    assert cost.tokens_per_second == pytest.approx(8 * 200_000)
    assert "own run top16-d20-s1-x" in cost.source
    assert "GPUs 1 -> 8" in cost.source
    other = estimate(Training(gpus=8), 10**9, ledger=[own_run().model_copy(update={"state": "failed"})])
    assert "own run" not in other.source


def test_precision_decides_before_size():
    cost = estimate(Training(precision="fp8", depth=12), 10**9, ledger=[own_run(depth=12)])
    assert "--fp8" in cost.source


def test_a_device_that_nobody_measured_has_no_speed_and_no_price():
    cost = estimate(Training(), 10**6, device="NVIDIA Quadro 1")
    assert estimate(Training(device="cpu"), 10**6).dollars == 0
    assert (cost.tokens_per_second, cost.hours, cost.dollars) == (None, None, None)
    assert "first one will tell" in cost.source
    assert cost.disk_bytes == 2 * 10**6 + 3 * checkpoint_bytes(20, 32_768)


def test_an_empty_budget_is_refused():
    with pytest.raises(InputError, match="0 tokens"):
        estimate(Training(), 0)


def test_a_whole_comparison_is_the_sum_of_its_arms():
    costs = [estimate(Training(), tokens, runs=3, read_bytes=10**9, label=str(tokens)) for tokens in (10**9, 2 * 10**9)]
    whole = total(costs, "all")
    assert whole.runs == 6 and whole.dollars == pytest.approx(costs[0].dollars + costs[1].dollars)
    assert whole.disk_bytes == sum(cost.disk_bytes for cost in costs) and whole.egress_bytes == 2 * 10**9
    unknown = estimate(Training(), 10**9, device="abacus")
    assert total([*costs, unknown], "all").dollars is None
    shown = estimate_markdown([*costs, whole])
    assert "| cost | " + " | ".join(f"${cost.dollars:,.2f}" for cost in (*costs, whole)) + " |" in shown
