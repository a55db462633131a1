"""The same function as a real checkout of nanochat; the formulas alone are in test_model and test_optimizer."""

import dataclasses
import os

import pytest
import torch

from benchmarks.training.parity import run_upstream
from tasks.engines.builtin.compute import build_compute
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import SCALAR_EPSILON, SCALARS, build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training
from tests.engines.builtin.reference import perturbed

CHECKOUT = os.environ.get("NANOCHAT_CHECKOUT")
STEPS = 20


@pytest.mark.skipif(not CHECKOUT, reason="set NANOCHAT_CHECKOUT to a checkout of nanochat to compare with it")
@pytest.mark.parametrize("recipe", SCALAR_EPSILON)
def test_function_and_steps_equal_nanochats(recipe):
    config = ModelShape.of_depth(4, 128, "SSSL", 300)
    state = perturbed(config, 1)
    plan = plan_training(config, tokens=STEPS * 256, batch_tokens=256)
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(0, 300, (2, 129), generator=generator) for _ in range(STEPS)]
    rates = [tuple(schedule(step, plan)) for step in range(STEPS)]
    task = {
        "config": dataclasses.asdict(config), "device": "cpu", "state": state, "rows": rows,
        "plan": dataclasses.asdict(plan), "rates": rates,
        "epsilons": dict.fromkeys(SCALARS, SCALAR_EPSILON[recipe]),
    }  # fmt: skip
    theirs = run_upstream(CHECKOUT, task, "float32")

    model = GPT(config)
    model.load_state_dict(state)
    compute, optimizer = build_compute(model, "fp32"), build_optimizer(model, plan, recipe)
    logits = compute.logits(rows[0][:, :-1])
    assert (logits - theirs["logits"]).norm() < 1e-5 * theirs["logits"].norm()
    assert compute.backward(rows[0][:, :-1], rows[0][:, 1:], 1.0).item() == pytest.approx(theirs["loss"], rel=1e-5)
    for name, parameter in model.named_parameters():
        wanted = theirs["gradients"][name]
        assert (compute.storage.grads[parameter] - wanted).norm() < 1e-5 * wanted.norm(), name
    for row, of_step in zip(rows, rates, strict=True):
        optimizer.zero_grad()
        compute.backward(row[:, :-1], row[:, 1:], 1.0)
        optimizer.step(*of_step)
    for name, tensor in model.state_dict().items():
        wanted = theirs["state"][name]
        assert (tensor - wanted).norm() < 1e-4 * wanted.norm(), name
