"""The optimizer's arithmetic against formulas in float64, and its state."""

import math

import pytest
import torch

from tasks.engines.builtin.adamw import AdamW, adamw_rates, adamw_step
from tasks.engines.builtin.compute import build_compute
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.muon import (
    POLAR_EXPRESS,
    equilibration,
    muon_rates,
    muon_step,
    orthogonalize,
    second_moment_shape,
)
from tasks.engines.builtin.optimizer import SCALARS, adamw_groups, build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.errors import InputError
from tasks.records.scaling import ModelShape, plan_training
from tests.engines.builtin.reference import perturbed


def _muon_in_float64(weight, gradient, momentum_buffer, second, lr, momentum, weight_decay):
    """One matrix, straight from the papers' formulas."""
    rows, columns = weight.shape
    momentum_buffer += (1 - momentum) * (gradient - momentum_buffer)
    x = gradient + momentum * (momentum_buffer - gradient)
    x = x * (x.norm() / math.sqrt(rows)) / x.norm(dim=1, keepdim=True)
    x = x / (1.01 * x.norm() + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    x = x * math.sqrt(min(rows, columns)) / x.norm()
    mean = x.square().mean(1 if rows >= columns else 0, keepdim=True)
    second += 0.1 * (mean - second)
    scaled = x / second.sqrt()
    x = scaled * (x.norm() / scaled.norm())
    lr = lr * math.sqrt(max(1, rows / columns))
    weight -= lr * x + lr * weight_decay * weight * (x * weight >= 0)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 6), (2, 6, 24)])
def test_muon_steps_equal_the_formulas(shape):
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(shape, generator=generator)
    momentum_buffer, second = torch.zeros(shape), torch.zeros(second_moment_shape(*shape))
    wanted = weights.double(), momentum_buffer.double(), second.double()
    for _ in range(3):
        gradients = torch.randn(shape, generator=generator)
        for place in range(shape[0]):
            _muon_in_float64(
                wanted[0][place], gradients[place].double(), wanted[1][place], wanted[2][place], 0.1, 0.9, 0.2
            )
        muon_step(
            weights, gradients, momentum_buffer, second, rates=muon_rates(*shape[1:], 0.1, 0.9, 0.2), beta2=0.9, dtype=torch.float32
        )  # fmt: skip
    assert (weights - wanted[0]).norm() < 1e-5 * wanted[0].norm()


def test_muons_update_is_nearly_orthogonal():
    weights, gradient = torch.zeros(1, 16, 64), torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(3))
    second = torch.ones(1, 1, 64)
    muon_step(
        weights, gradient, torch.zeros_like(weights), second, rates=(0.0, 1.0, 0.0), beta2=1.0, dtype=torch.float32
    )  # fmt: skip
    assert weights.norm().item() == pytest.approx(math.sqrt(16), rel=1e-4)
    assert torch.linalg.svdvals(weights[0]).sub(1).abs().max() < 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adamw_equals_torchs(dtype):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(5, 7, generator=generator).to(dtype)
    parameter, first, second = start.clone(), torch.zeros(5, 7, dtype=dtype), torch.zeros(5, 7, dtype=dtype)
    theirs = torch.nn.Parameter(start.float())
    reference = torch.optim.AdamW([theirs], lr=0.05, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.1)
    constants = AdamW(0.1, 0.8, 0.95, 0.1)
    for step in range(1, 6):
        gradient = torch.randn(5, 7, generator=generator)
        adamw_step(parameter, gradient, first, second, constants, adamw_rates(constants, 0.5, step))
        theirs.grad = gradient
        reference.step()
    assert torch.allclose(parameter.float(), theirs.detach(), atol=1e-6 if dtype == torch.float32 else 0.05)


def test_the_quiet_recipe_changes_the_scalars_epsilon_alone():
    model = GPT(ModelShape.of_depth(2, 32, "L", 70))
    upstream, quiet = adamw_groups(model, 0.5), adamw_groups(model, 0.5, "quiet")
    changed = {name for name in upstream if upstream[name] != quiet[name]}
    assert changed == set(SCALARS) and changed <= dict(model.named_parameters()).keys()
    assert all(quiet[name] == upstream[name]._replace(epsilon=0.1) for name in SCALARS)


def test_a_gradient_below_epsilon_gives_a_step_in_proportion_to_it():
    parameter, first, second = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    constants = AdamW(1.0, 0.8, 0.95, 0.0, epsilon=0.1)
    adamw_step(parameter, torch.tensor([1e-6, 1e-5]), first, second, constants, adamw_rates(constants, 1.0, 1))
    assert torch.allclose(parameter, torch.tensor([-1e-5, -1e-4]), rtol=1e-3)


def _trainer(config):
    model = GPT(config)
    model.load_state_dict(perturbed(config, 1))
    plan = plan_training(config, tokens=64 * 100, batch_tokens=64)
    return model, build_compute(model, "fp32"), build_optimizer(model, plan), plan


def _train(trainer, steps, generator):
    _, compute, optimizer, plan = trainer
    for step in steps:
        rows = torch.randint(0, 70, (2, 33), generator=generator)
        optimizer.zero_grad()
        compute.backward(rows[:, :-1], rows[:, 1:], 1.0)
        optimizer.step(*schedule(step, plan))


def test_every_parameter_moves_and_gradients_add_up():
    config = ModelShape.of_depth(2, 32, "L", 70)
    trainer = model, compute, optimizer, _ = _trainer(config)
    rows = torch.randint(0, 70, (2, 33), generator=torch.Generator().manual_seed(1))
    whole = compute.backward(rows[:, :-1], rows[:, 1:], 1.0)
    grads = {name: compute.storage.grads[p].clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    assert all(gradient.abs().max() == 0 for gradient in compute.storage.grads.values())
    halves = [compute.backward(row[None, :-1], row[None, 1:], 0.5) for row in rows]
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(compute.storage.grads[parameter], grads[name], rtol=1e-4, atol=1e-7), name
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _train(trainer, range(1), torch.Generator().manual_seed(1))
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_loaded_state_goes_on_bit_for_bit():
    config = ModelShape.of_depth(2, 32, "L", 70)
    whole = _trainer(config)
    _train(whole, range(3), torch.Generator().manual_seed(1))
    state = {key: tensor.clone() for key, tensor in whole[2].local_state().items()}
    weights = {name: tensor.clone() for name, tensor in whole[0].state_dict().items()}
    _train(whole, range(3, 5), torch.Generator().manual_seed(2))

    resumed = _trainer(config)
    resumed[0].load_state_dict(weights)
    resumed[2].load_state(state)
    _train(resumed, range(3, 5), torch.Generator().manual_seed(2))
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, resumed[0].state_dict()[name]), name


def test_a_foreign_state_is_refused():
    *_, optimizer, _ = _trainer(ModelShape.of_depth(2, 32, "L", 70))
    state = dict(optimizer.local_state())
    with pytest.raises(InputError, match=r"lacks exp_avg/lm_head\.weight"):
        optimizer.load_state({key: tensor for key, tensor in state.items() if key != "exp_avg/lm_head.weight"})
    with pytest.raises(InputError, match="has shape"):
        optimizer.load_state(state | {"exp_avg/lm_head.weight": torch.zeros(3)})


@pytest.mark.parametrize("shape", [(768, 192), (192, 768), (384, 384), (6, 12)])
def test_bf16_leaves_the_largest_directions_of_an_update(shape: tuple[int, int]) -> None:
    """Of a matrix with few large and many small singular values, as gradients are, no direction may move by a tenth."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = shape
    rank = min(shape)
    left, right = (torch.linalg.qr(torch.randn(size, rank, generator=generator))[0] for size in shape)
    spectrum = torch.arange(1, rank + 1) ** -1.2
    gradient = ((left * spectrum) @ right.T + 3e-4 * torch.randn(rows, columns, generator=generator))[None]
    equal = gradient * equilibration(gradient)
    exact, rounded = orthogonalize(equal), orthogonalize(equal.bfloat16()).float()
    assert torch.linalg.matrix_norm((rounded - exact)[0], 2) < 0.1
