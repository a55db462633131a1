"""The model against formulas written out in float64, and its shapes, names and initial values."""

import dataclasses
import math

import pytest
import torch

from tasks.engines.builtin.model import GPT
from tasks.records.scaling import ModelShape
from tests.engines.builtin.reference import cross_entropy, logits_of, perturbed


def _model(config: ModelShape) -> GPT:
    model = GPT(config)
    model.load_state_dict(perturbed(config, seed=1))
    return model


@pytest.mark.parametrize(("depth", "pattern"), [(1, "L"), (3, "SSSL")])
def test_logits_and_loss_equal_the_formulas(depth, pattern):
    config = ModelShape.of_depth(depth, 256, pattern, vocab_size=70)
    model = _model(config)
    tokens = torch.randint(0, 70, (2, 160), generator=torch.Generator().manual_seed(2))
    wanted = logits_of(config, {name: tensor.double() for name, tensor in model.state_dict().items()}, tokens)
    got = model(tokens)
    assert got.shape == (2, 160, 70) and got.dtype == torch.float32
    assert (got - wanted).norm() < 1e-5 * wanted.norm()
    targets = tokens.roll(-1, 1)
    targets[0, 5] = -1
    nats = cross_entropy(wanted, targets)
    each = model(tokens, targets, reduction="none")
    assert each[0, 5] == 0
    assert torch.allclose(each.double(), nats, rtol=1e-5, atol=1e-5)
    assert model(tokens, targets).item() == pytest.approx(nats.sum().item() / (targets >= 0).sum().item(), rel=1e-5)


def test_gradients_equal_those_of_the_formulas():
    config = ModelShape.of_depth(3, 128, "SSL", vocab_size=70)
    model = _model(config)
    tokens = torch.randint(0, 70, (2, 40), generator=torch.Generator().manual_seed(3))
    targets = tokens.roll(-1, 1)
    model(tokens, targets).backward()
    weights = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    cross_entropy(logits_of(config, weights, tokens), targets).mean().backward()
    for name, parameter in model.named_parameters():
        wanted = weights[name].grad
        assert (parameter.grad - wanted).norm() < 1e-5 * wanted.norm(), name


def test_a_window_hides_what_is_before_it():
    """Two S layers of window 128 (and the last, L): a change far to the left reaches a position only through the last layer."""
    config = ModelShape.of_depth(1, 512, "L", vocab_size=70)
    short = dataclasses.replace(config, n_layer=2, window_pattern="SL")
    assert short.windows == [128, 512]
    attention = _model(short).transformer["h"][0].attn
    x = torch.randn(1, 200, short.n_embd, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[0, 0] += 1
    cos, sin = _model(short).rotary(200, x.device)
    moved = (attention(x, None, cos, sin) - attention(other, None, cos, sin)).abs().amax((0, 2)) > 1e-7
    assert moved[:129].all() and not moved[129:].any()


def test_names_shapes_and_initial_values():
    config = ModelShape.of_depth(4, 256, "SSSL", vocab_size=100)
    assert (config.n_embd, config.n_head, config.padded_vocab_size) == (256, 2, 128)
    model = GPT(config)
    model.init_weights(7)
    state = model.state_dict()
    assert list(config.windows) == [128, 128, 128, 256]
    assert {name for name in state if "embeds" in name} == {"value_embeds.1.weight", "value_embeds.3.weight"}
    assert state["transformer.h.1.attn.ve_gate.weight"].shape == (2, 12)
    assert "transformer.h.0.attn.ve_gate.weight" not in state
    assert state["transformer.wte.weight"].shape == state["lm_head.weight"].shape == (128, 256)
    assert state["transformer.wte.weight"].std().item() == pytest.approx(0.8, rel=0.02)
    assert state["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.02)
    bound = math.sqrt(3 / 256)
    assert state["transformer.h.0.attn.c_q.weight"].abs().max().item() == pytest.approx(bound, rel=0.01)
    assert state["transformer.h.0.mlp.c_fc.weight"].abs().max().item() == pytest.approx(0.4 * bound, rel=0.01)
    assert state["transformer.h.2.mlp.c_proj.weight"].abs().max() == 0
    assert state["resid_lambdas"].tolist() == pytest.approx([1.15, 1.15 - 0.1 / 3, 1.15 - 0.2 / 3, 1.05])
    assert state["x0_lambdas"].tolist() == pytest.approx([0.2, 0.15, 0.1, 0.05])
    again = GPT(config)
    again.init_weights(7)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in state.items())
    again.init_weights(2**63 - 1)  # the largest seed of a form
    assert not torch.equal(state["lm_head.weight"], again.lm_head.weight)
    again.init_weights(8)
    assert not torch.equal(state["lm_head.weight"], again.lm_head.weight)
