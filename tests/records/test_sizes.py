"""The table of depths, against the models and against figures worked out by hand."""

import pytest
import torch

from tasks.engines.builtin.model import GPT
from tasks.records.cost import rate_table
from tasks.records.scaling import ModelShape
from tasks.records.sizes import OLD_TABLE, other_table, sizes
from tasks.spec import Training

TABLE = {size.depth: size for size in sizes(Training(window_pattern="L", dollars_per_gpu_hour=2.0), 10.5, 32_768)}


@pytest.mark.parametrize("depth", [12, 20, 24, 32])
def test_parameters_are_those_of_the_models_and_tokens_are_the_ratio(depth: int) -> None:
    with torch.device("meta"):
        model = GPT(ModelShape.of_depth(depth))
    scaling = sum(p.numel() for part in (model.transformer["h"], model.lm_head) for p in part.parameters())
    size = TABLE[depth]
    assert (size.parameters, size.scaling) == (sum(p.numel() for p in model.parameters()), scaling)
    assert size.tokens == int(10.5 * scaling)


def test_a_measured_gpu_has_its_own_speed_and_another_one_is_scaled_and_marked() -> None:
    costs = TABLE[20].costs
    assert {name: cost.scaled for name, cost in costs.items()} == {"H100": False, "H200": False, "GH200": True, "A100": True}  # fmt: skip
    row = next(r for r in rate_table().throughput if (r.engine, r.depth, r.precision) == ("builtin", 20, "bf16"))
    assert costs["H100"].hours == pytest.approx((TABLE[20].tokens / row.tokens_per_second + row.start_seconds) / 3600)
    assert costs["H100"].dollars == pytest.approx(2 * costs["H100"].hours)
    assert costs["A100"].tokens_per_second == pytest.approx(row.tokens_per_second * 312 / 989)
    assert "scaled from NVIDIA H100 80GB HBM3 to NVIDIA A100" in costs["A100"].source
    deep = TABLE[32].costs["H100"]
    assert "carried over from depth 26 -> 32" in deep.source


def test_the_old_table_keeps_the_ratio_but_counts_smaller_models() -> None:
    said = other_table(OLD_TABLE, 32_768)
    assert "keeps the ratio (10.4 to 10.7 tokens a parameter)" in said
    assert "of d12 (110 M), d14 (164 M), d15 (222 M), d18 (324 M)" in said
    assert "have 3.5 to 5.0 times as many, so its tokens are 2.1 to 3.0 for each." in said
    assert TABLE[20].scaling / 124e6 == pytest.approx(3.51, abs=0.01) and 1.3e9 / TABLE[20].scaling == pytest.approx(2.99, abs=0.01)  # fmt: skip
