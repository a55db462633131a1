"""Replayed steps against the same steps kernel by kernel: the same bits, whatever changes from step to step."""

import pytest
import torch

from tasks.engines.builtin.compute import build_compute
from tasks.engines.builtin.graphs import replayable, small
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def test_on_a_cpu_nothing_is_replayed():
    assert not replayable(GPT(ModelShape.of_depth(3, 32, "L", 70)))


def test_steps_that_python_keeps_ahead_of_are_not_replayed():
    assert small(ModelShape.of_depth(4), 131_072) and small(ModelShape.of_depth(12), 32_768)
    assert not small(ModelShape.of_depth(12), 65_536) and not small(ModelShape.of_depth(20), 2_048)


@GPU
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_replayed_steps_give_the_same_bits(precision):
    config = ModelShape.of_depth(4, 512, "L", 1000)
    plan = plan_training(config, tokens=100 * 8 * 512, batch_tokens=8 * 512)
    found = []
    for graphed in (True, False):
        rows = torch.Generator().manual_seed(2)
        model = GPT(config, torch.bfloat16)
        model.init_weights(1)
        compute = build_compute(model.cuda(), precision, deterministic=True)
        optimizer = build_optimizer(model, plan)
        compute.graphed = optimizer.graphed = graphed
        losses = []
        for step in range(4):
            optimizer.zero_grad()
            for _ in range(2):
                tokens = torch.randint(0, 1000, (4, 513), generator=rows).cuda()
                losses.append(compute.backward(tokens[:, :-1], tokens[:, 1:], 0.5))
            optimizer.step(*schedule(step, plan))
        nats = compute.losses(tokens[:, :-1], tokens[:, 1:])
        found.append([*losses, nats, *(p.detach().clone() for p in model.parameters())])
    assert all(torch.equal(replayed, wanted) for replayed, wanted in zip(*found, strict=True))
    assert len({loss.item() for loss in found[0][:8]}) == 8
