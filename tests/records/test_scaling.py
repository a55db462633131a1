"""The scaling rules, against the model itself, upstream's published numbers, and numbers worked out by hand."""

import math
from functools import cache
from itertools import product

import pytest
import torch

from tasks.engines.builtin.model import GPT, Linear
from tasks.engines.nanochat.contract import state_shapes
from tasks.engines.nanochat.plan import plan_run
from tasks.errors import InputError
from tasks.records.cost import estimate_cost
from tasks.records.scaling import (
    ModelShape,
    budget_tokens,
    check_batch,
    choose_batch,
    flops_per_token,
    parameter_counts,
    plan_training,
)
from tasks.spec import Training

DEPTHS = range(1, 33)
LENGTHS = (64, 512, 1000, 2048, 65_536)


@cache
def model_of(shape: ModelShape) -> GPT:
    with torch.device("meta"):
        return GPT(shape)


def size_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def batch_by_hand(depth: int, length: int) -> int:
    """The rule, from the parameters of real models."""
    models = [model_of(ModelShape.of_depth(layers)) for layers in (depth, 12)]
    size, reference = (size_of(model.transformer["h"]) + size_of(model.lm_head) for model in models)
    return max(2 ** round(math.log2(2**19 * (size / reference) ** 0.383)) // length, 1) * length


def test_widths_of_depths():
    assert [ModelShape.of_depth(depth).n_embd for depth in (1, 4, 12, 20, 26)] == [128, 256, 768, 1280, 1664]
    assert [ModelShape.of_depth(depth).n_head for depth in (1, 4, 12, 20, 26)] == [1, 2, 6, 10, 13]
    assert ModelShape.of_depth(12, 1000, "S").windows == 11 * [256] + [1000]
    with pytest.raises(InputError, match="depth is 0"):
        ModelShape.of_depth(0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_counts_are_those_of_the_model(depth):
    for vocab_size in (300, 32_768, 65_535):
        shape = ModelShape.of_depth(depth, 1024, "SSSL", vocab_size)
        counts, model = parameter_counts(shape), model_of(shape)
        assert counts.wte == size_of(model.transformer["wte"])
        assert counts.value_embeds == size_of(model.value_embeds)
        assert counts.lm_head == size_of(model.lm_head)
        assert counts.matrices == size_of(model.transformer["h"])
        assert counts.smear_gate == size_of(model.smear_gate)
        assert counts.total == size_of(model)
        assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == state_shapes(shape)


@pytest.mark.parametrize("depth", DEPTHS)
def test_flops_are_those_of_the_models_products_and_windows(depth):
    for length, window_pattern in ((64, "SSSL"), (2048, "SSSL"), (2048, "L")):
        shape = ModelShape.of_depth(depth, length, window_pattern)
        model = model_of(shape)
        products = sum(size_of(module) for module in model.modules() if isinstance(module, Linear))
        attention = sum(12 * shape.n_embd * min(block.attn.window, length) for block in model.transformer["h"])
        assert flops_per_token(shape) == 6 * products + attention


def test_depth_20_is_counted_as_published():
    shape = ModelShape.of_depth(20, 2048, "L")
    counts = parameter_counts(shape)
    assert counts.lm_head == counts.wte == 32_768 * 1280
    assert counts.value_embeds == 10 * 32_768 * 1280
    assert counts.matrices == 20 * 12 * 1280**2 + 10 * 10 * 12
    assert (counts.total, counts.scaling) == (896_533_746, 435_160_240)
    peak, measured = 989e12, 156_800
    assert flops_per_token(shape) * measured / peak == pytest.approx(0.514, abs=0.001)


def test_short_windows_cost_less_and_the_last_layer_is_long():
    full, windowed, short = (flops_per_token(ModelShape.of_depth(4, 2048, pattern)) for pattern in ("L", "SSSL", "S"))
    assert windowed == short == full - 3 * 12 * 256 * (2048 - 512)


@pytest.mark.parametrize("depth", DEPTHS)
def test_both_engines_and_the_estimate_take_the_same_steps(depth):
    for length, given_rows in product(LENGTHS, (None, 1, 24)):
        batch = batch_by_hand(depth, length) if given_rows is None else given_rows * length
        left = batch // length - 1
        rows = 37 * batch // length + left
        given = None if given_rows is None else batch
        training = Training(depth=depth, sequence_length=length, packing="crop", batch_tokens=given, micro_batch=1)
        builtin = plan_training(ModelShape.of(training, 32_768), None, given, rows)
        upstream = plan_run(training, rows, 32_768, ())
        for plan in (builtin, upstream):
            assert (plan.batch_tokens, plan.iterations, plan.tokens) == (batch, 37, 37 * batch)
        assert (upstream.ratio, upstream.rows_left) == (builtin.ratio, left)
        assert estimate_cost(training, rows * length).steps == 37


@pytest.mark.parametrize(("depth", "batch"), [(4, 2**18), (8, 2**18), (12, 2**19), (20, 2**20), (26, 2**20)])
def test_batches_of_depths(depth, batch):
    assert choose_batch(ModelShape.of_depth(depth)) == batch
    assert choose_batch(ModelShape.of_depth(depth, 1000)) == batch // 1000 * 1000


@pytest.mark.parametrize("depth", [1, 4, 12, 20, 32])
def test_the_budget_changes_the_number_of_steps_but_not_their_size(depth):
    shape = ModelShape.of_depth(depth)
    plans = [plan_training(shape, tokens=tokens) for tokens in (10**7, 10**9, 10**11)]
    assert len({(plan.batch_tokens, plan.lr_scale, plan.weight_decay) for plan in plans}) == 1


def test_the_playbooks_small_comparison_takes_76_steps():
    training = Training(depth=4, sequence_length=512, packing="crop", tokens=20_000_000)
    plan = plan_training(ModelShape.of(training, 32_768), training.tokens)
    assert (plan.batch_tokens, plan.iterations) == (262_144, 76)
    assert estimate_cost(training, training.tokens).steps == 76
    assert plan_run(training, 20_000_000 // 512 + 1, 32_768, ()).iterations == 76


def test_a_budget_by_ratio_is_that_many_tokens_for_each_scaling_parameter():
    training = Training(tokens_per_parameter=10.5)
    scaling = size_of(model_of(ModelShape.of_depth(20)).transformer["h"]) + 32_768 * 1_280
    assert budget_tokens(training, 32_768) == int(10.5 * scaling) == 4_569_182_520
    plan = plan_training(ModelShape.of(training, 32_768), 4_569_182_520)
    assert plan.iterations == 4_569_182_520 // 2**20 and plan.ratio == pytest.approx(10.5, rel=1e-3)
    assert budget_tokens(Training(tokens=7), 32_768) == 7 and budget_tokens(Training(), 32_768) is None
    cropped = Training(engine="nanochat", packing="crop", tokens_per_parameter=10.5)
    rows = 4_569_182_520 // 2_048
    assert plan_run(cropped, rows + 1, 32_768, ()).iterations == plan.iterations
    with pytest.raises(
        InputError, match=r"budget is 4,569,182,520 tokens .* leave tokens and tokens_per_parameter empty"
    ):
        plan_run(cropped, 2 * rows, 32_768, ())


def test_the_reference_depth_is_not_scaled():
    shape = ModelShape.of_depth(12)
    tokens = 12 * parameter_counts(shape).scaling
    plan = plan_training(shape, tokens=tokens)
    assert (plan.batch_tokens, plan.lr_scale, plan.weight_decay) == (2**19, 1.0, 0.28)
    assert plan.iterations == tokens // 2**19
    assert plan.ratio == plan.tokens / parameter_counts(shape).scaling


def test_a_deeper_model_takes_larger_batches():
    shape = ModelShape.of_depth(24)
    scaling = parameter_counts(shape).scaling
    factor = scaling / parameter_counts(ModelShape.of_depth(12)).scaling
    plan = plan_training(shape, tokens=12 * scaling)
    assert plan.batch_tokens == 2**20
    assert plan.lr_scale == pytest.approx(math.sqrt(2))
    assert plan.weight_decay == pytest.approx(0.28 * math.sqrt(2) / factor)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no budget"),
        ({"rows": 10, "tokens": 11 * 512}, "needs 11 packed rows but the arm has 10: lower tokens to 5,120"),
        ({"rows": 10, "batch_tokens": 700}, "700 is not a multiple of the sequence length 512: set it to 512 or 1,024"),
        ({"rows": 10, "batch_tokens": 100}, "100 is not a multiple of the sequence length 512: set it to 512"),
        ({"rows": 10, "batch_tokens": 512 * 16}, "5,120 tokens does not fill one batch of 8,192"),
    ],
)
def test_budgets_that_cannot_be(wrong, message):
    with pytest.raises(InputError, match=message):
        plan_training(ModelShape.of_depth(4, 512), **wrong)


def test_a_batch_must_be_shared_equally():
    assert check_batch(4096, 256, 4) == 16
    with pytest.raises(InputError, match="set batch_tokens to 3,072"):
        check_batch(3 * 1024 + 512, 512, 3)
    with pytest.raises(InputError, match="set batch_tokens to 2,048 or more, or gpus to 2 or fewer"):
        check_batch(1024, 512, 4)
