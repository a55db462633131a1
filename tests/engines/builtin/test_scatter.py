"""Gradients added up by token: the sums that float64 gives, and the same bits every time."""

import pytest
import torch

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")


@GPU
@pytest.mark.parametrize(
    ("count", "heads", "width", "entries"), [(8192, 3, 128, 500), (1000, 2, 128, 3), (333, 1, 200, 1), (64, 1, 128, 64)]
)
def test_rows_are_added_up_by_token_in_one_order(count, heads, width, entries):
    from tasks.engines.builtin.kernels.scatter import add_rows, order_of

    generator = torch.Generator("cuda").manual_seed(1)
    tokens = (torch.rand(count, generator=generator, device="cuda") ** 3 * entries).long()  # some far more common
    packed = torch.randn(count, 3, heads, width, generator=generator, device="cuda").bfloat16()
    rows, factors = packed[:, 1], torch.rand(count, heads, generator=generator, device="cuda")
    table = torch.randn(entries, heads * width, generator=generator, device="cuda")
    wanted = table.double().index_add(0, tokens, (rows.double() * factors.double()[..., None]).flatten(1))
    found = []
    for _ in range(3):
        found.append(table.clone())
        add_rows(found[-1], order_of(tokens), rows, factors)
    assert (found[0].double() - wanted).norm() < 1e-6 * wanted.norm()
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    add_rows(table, order_of(tokens), rows)
    assert torch.isfinite(table).all()


@GPU
def test_deterministic_gradients_are_the_same_bits():
    from tasks.engines.builtin.compute import build_compute
    from tasks.engines.builtin.model import GPT
    from tasks.records.scaling import ModelShape

    config = ModelShape.of_depth(3, 512, "SSSL", 1000)
    rows = torch.randint(0, 1000, (4, 513), generator=torch.Generator().manual_seed(2)).cuda()
    found = []
    for _ in range(2):
        model = GPT(config, torch.bfloat16)
        model.init_weights(1)
        compute = build_compute(model.cuda(), "bf16", deterministic=True)
        for _ in range(3):
            compute.backward(rows[:, :-1], rows[:, 1:], 1.0)
        found.append({name: compute.storage.grads[p].clone() for name, p in model.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
