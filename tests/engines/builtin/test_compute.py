"""Precision that a device cannot do is refused; the fused path computes what the plain one does."""

import pytest
import torch

from tasks.engines.builtin.compute import build_compute, check_tokens, fusable
from tasks.engines.builtin.model import GPT
from tasks.errors import InputError
from tasks.records.scaling import ModelShape
from tests.engines.builtin.reference import perturbed

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused path needs a GPU")


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_cpu_refuses_other_than_fp32(precision):
    with pytest.raises(InputError, match=f"precision={precision} needs a GPU"):
        build_compute(GPT(ModelShape.of_depth(1, 32, "L", 70)), precision)


def test_fp8_takes_16_tokens_at_a_time():
    for precision, rows, length in (("fp8", 2, 1000), ("fp8", 1, 1024), ("bf16", 1, 1000)):
        check_tokens(precision, rows, length)
    with pytest.raises(
        InputError, match="not micro_batch 1 x sequence_length 1000: take a sequence_length that is a mult"
    ):
        check_tokens("fp8", 1, 1000)


def test_models_of_two_layers_are_left_to_autograd():
    assert [depth for depth in range(1, 5) if fusable(ModelShape.of_depth(depth))] == [3, 4]


def test_plain_compute_has_no_fp8_scales_to_load():
    compute = build_compute(GPT(ModelShape.of_depth(1, 32, "L", 70)), "fp32")
    compute.load_state_dict(compute.state_dict())
    with pytest.raises(InputError, match="precision=fp8"):
        compute.load_state_dict({"fp8_scales": torch.ones(6, 1)})


def test_losses_are_those_of_forward_and_ignore_targets_of_minus_one():
    config = ModelShape.of_depth(2, 32, "L", 70)
    model = GPT(config)
    model.load_state_dict(perturbed(config, 1))
    compute = build_compute(model, "fp32")
    tokens = torch.randint(0, 70, (3, 20), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, 1)
    targets[:, 15:] = -1
    nats = compute.losses(tokens, targets)
    assert nats.shape == (3, 20) and (nats[:, 15:] == 0).all() and (nats[:, :15] > 0).all()
    assert nats.sum().item() / 45 == pytest.approx(model(tokens, targets).item(), rel=1e-6)


@GPU
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("fp8", 0.12)])
@pytest.mark.parametrize("pattern", ["L", "SSSL"])
def test_fused_gradients_are_near_fp32(precision, limit, pattern):
    config = ModelShape.of_depth(4, 512, pattern, 1000)
    state = perturbed(config, 1)
    rows = torch.randint(0, 1000, (2, 513), generator=torch.Generator().manual_seed(2)).cuda()
    found = []
    for chosen, dtype in (("fp32", torch.float32), (precision, torch.bfloat16)):
        model = GPT(config, dtype)
        model.load_state_dict(state)
        compute = build_compute(model.cuda(), chosen)
        loss = compute.backward(rows[:, :-1], rows[:, 1:], 1.0)
        nats = compute.losses(rows[:, :-1], rows[:, 1:])
        grads = torch.cat([compute.storage.grads[p].flatten() for p in model.parameters()])
        found.append((loss, nats, grads))
    (loss, nats, grads), (got_loss, got_nats, got_grads) = found
    assert got_loss.item() == pytest.approx(loss.item(), rel=2e-3)
    assert (got_nats - nats).abs().mean() < 0.02
    assert (got_grads - grads).norm() < limit * grads.norm()


@GPU
@pytest.mark.parametrize("depth", [3, 5])
def test_gradients_of_the_residual_streams_factors_are_as_near_fp32_as_autograds(depth):
    """A factor's gradient is a sum over all tokens that nearly cancels out: how near fp32 bf16 can come, autograd shows."""
    config, apart = ModelShape.of_depth(depth, 512, "L", 1000), torch.zeros(2, 3)
    for seed in range(12):
        state = perturbed(config, seed)
        rows = torch.randint(0, 1000, (2, 513), generator=torch.Generator().manual_seed(seed)).cuda()
        found = []
        for dtype, kernels in ((torch.float32, False), (torch.bfloat16, True), (torch.bfloat16, False)):
            model = GPT(config, dtype)
            model.load_state_dict(state)
            compute = build_compute(model.cuda(), "fp32" if dtype == torch.float32 else "bf16", kernels)
            compute.backward(rows[:, :-1], rows[:, 1:], 1.0)
            factors = (model.resid_lambdas, model.x0_lambdas, model.backout_lambda)
            found.append([compute.storage.grads[factor] for factor in factors])
        wanted, *others = found
        for way, got in enumerate(others):
            apart[way] += torch.tensor([(g - w).square().sum() for g, w in zip(got, wanted, strict=True)])
    fused, autograd = apart.sqrt()
    assert (fused < 1.5 * autograd).all(), (fused, autograd)
