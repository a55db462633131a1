"""Two ranks are one: losses, weights and optimizer state, over gloo on the CPU."""

import pytest
import torch
import torch.distributed as dist

from tasks.engines.builtin.compute import build_compute
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training
from tests.engines.builtin.ranks import fork
from tests.engines.builtin.reference import perturbed

STEPS = 20


def train(folder, rank, world):
    """Train this rank's part of each batch of 4 rows in two micro-batches; save losses, weights and owned state.

    Every other step reduces while the last backward pass runs, the others afterwards.
    """
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    config = ModelShape.of_depth(
        3, 16, "L", 70
    )  # in 2 layers backout scales what is normed next: its gradient is mere rounding
    model = GPT(config)
    model.load_state_dict(perturbed(config, 1))
    compute = build_compute(model, "fp32")
    plan = plan_training(config, tokens=64 * STEPS, batch_tokens=64)
    optimizer = build_optimizer(model, plan)
    generator, losses = torch.Generator().manual_seed(5), []
    for step in range(STEPS):
        rows = torch.randint(0, 70, (4, 17), generator=generator).chunk(world)[rank]
        micro_batches = rows.split(len(rows) // 2)
        optimizer.zero_grad()
        total = torch.zeros(())
        for place, part in enumerate(micro_batches):
            if step % 2 and place == len(micro_batches) - 1:
                optimizer.start_reduce()
            scale = 1 / (len(micro_batches) * world)
            total += compute.backward(part[:, :-1], part[:, 1:], scale) * scale
        optimizer.step(*schedule(step, plan))
        if world > 1:
            dist.all_reduce(total)
        losses.append(total.item())
    torch.save((losses, model.state_dict(), optimizer.local_state()), folder / f"{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    processes = [fork(train, tmp_path, rank, 2) for rank in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    train(tmp_path, 0, 1)
    alone, weights, state = torch.load(tmp_path / "0.pt")
    assert both[0][0] == both[1][0]
    assert both[0][0] == pytest.approx(alone, rel=1e-5)
    for name, tensor in weights.items():
        assert torch.equal(both[0][1][name], both[1][1][name]), name
        assert (both[0][1][name] - tensor).norm() < 1e-4 * tensor.norm(), name
    owned = [set(part[2]) for part in both]
    assert owned[0] | owned[1] == set(state) and not owned[0] & owned[1]
    union = both[0][2] | both[1][2]
    for key, tensor in state.items():
        assert (union[key].float() - tensor.float()).norm() <= 1e-3 * tensor.float().norm(), key
    sizes = [sum(tensor.numel() for tensor in part[2].values()) for part in both]
    assert max(sizes) < 0.7 * sum(sizes)
