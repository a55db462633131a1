import pytest

from tasks.errors import InputError
from tasks.records.cost import checkpoint_bytes, estimate_cost, rate_table, total
from tasks.records.ledger import LedgerEntry
from tasks.records.scaling import ModelShape
from tasks.reports.artifacts import estimate_markdown
from tasks.spec import Experiment, Training


def test_the_table_gives_its_own_figure_back_with_its_source():
    training = Training(engine="nanochat", window_pattern="L", dollars_per_gpu_hour=2.0)
    cost = estimate_cost(training, 1_568_000_000, runs=3)
    row = rate_table().throughput[0]
    assert cost.tokens_per_second == pytest.approx(156_800)
    assert cost.hours == pytest.approx((10_000 + row.start_seconds) / 3600)
    assert cost.gpu_hours == pytest.approx(3 * cost.hours)
    assert cost.dollars == pytest.approx(2 * cost.gpu_hours)
    assert cost.source == row.source


def own_run(**training):
    whole = Experiment(training=Training(**training))
    names = {"run": "top16-d20-s1-x", "arm": "top16", "arm_id": "top16-1", "pool_id": "pool-1", "seed": 1}
    alike = {field: getattr(whole.training, field) for field in ("depth", "engine", "precision")}
    measured = {"device": "NVIDIA H100 80GB HBM3", "tokens_per_second": 200_000.0}
    return LedgerEntry(**names, **alike, **measured, state="completed", experiment=whole, attempts=())


def test_own_runs_refine_the_table_and_eight_gpus_are_eight_times_one():
    cost = estimate_cost(Training(gpus=8), 10**9, ledger=[own_run()])
    assert cost.tokens_per_second == pytest.approx(8 * 200_000)
    assert "the run top16-d20-s1-x" in cost.source
    assert "GPUs 1 -> 8" in cost.source
    other = estimate_cost(Training(gpus=8), 10**9, ledger=[own_run().model_copy(update={"state": "failed"})])
    assert "the run" not in other.source


def test_precision_decides_before_size():
    cost = estimate_cost(Training(precision="fp8", depth=12), 10**9, ledger=[own_run(depth=12)])
    assert "trainer in fp8" in cost.source


def test_a_device_that_nobody_measured_has_no_speed_and_no_price():
    cost = estimate_cost(Training(), 10**6, device="NVIDIA Quadro 1")
    assert estimate_cost(Training(device="cpu"), 10**6).dollars == 0
    assert (cost.tokens_per_second, cost.hours, cost.dollars) == (None, None, None)
    assert "first one will tell" in cost.source
    assert cost.disk_bytes == 2 * 10**6 + 3 * checkpoint_bytes(ModelShape.of_depth(20))


def test_a_budget_below_one_batch_makes_no_step():
    assert estimate_cost(Training(), 2**20 - 1).steps == 0
    assert estimate_cost(Training(), 2**20).steps == 1


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(InputError, match="0 tokens"):
        estimate_cost(Training(), 0)
    with pytest.raises(InputError, match="batch_tokens 100 is not a multiple"):
        estimate_cost(Training(batch_tokens=100), 10**9)


def test_a_whole_comparison_is_the_sum_of_its_arms():
    costs = [
        estimate_cost(Training(), tokens, runs=3, read_bytes=10**9, label=str(tokens)) for tokens in (10**9, 2 * 10**9)
    ]
    whole = total(costs, "all")
    assert whole.runs == 6 and whole.dollars == pytest.approx(costs[0].dollars + costs[1].dollars)
    assert whole.disk_bytes == sum(cost.disk_bytes for cost in costs) and whole.egress_bytes == 2 * 10**9
    unknown = estimate_cost(Training(), 10**9, device="abacus")
    assert total([*costs, unknown], "all").dollars is None
    shown = estimate_markdown([*costs, whole])
    assert "| cost | " + " | ".join(f"${cost.dollars:,.2f}" for cost in (*costs, whole)) + " |" in shown
