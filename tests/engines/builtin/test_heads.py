"""Heads in tiles of tokens: the formulas in float64 and their gradients at sizes that no tile divides, and more tokens than a grid is high."""

import pytest
import torch

from tasks.engines.builtin.model import rotary_tables

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
DEVICE = torch.device("cuda")


def in_float64(qkv, cos, sin, scale, values, batch, count):
    """What `heads` leaves of products (M, 3 C), and 1/rms."""
    length, half = cos.shape
    q, k, v = qkv.view(batch, length, 3, count, 2 * half).unbind(2)
    c, s = cos.double()[:, None], sin.double()[:, None]
    done, rstds = [], []
    for x in (q, k):
        left, right = x.chunk(2, -1)
        turned = torch.cat([left * c + right * s, right * c - left * s], -1)
        rstds.append(torch.rsqrt(turned.square().mean(-1) + torch.finfo(torch.float32).eps))
        done.append(turned * rstds[-1][..., None] * scale)
    if values:
        tokens, x, gate, table = values
        gates = 3 * torch.sigmoid(x[:, : gate.size(1)] @ gate.T)
        v = v + (gates[..., None] * table[tokens].view(len(x), count, -1)).view_as(v)
    return torch.stack([*done, v], 2).view_as(qkv), torch.stack(rstds, 2).flatten(0, 1)


@GPU
@pytest.mark.parametrize(
    ("batch", "length", "count", "width", "taps"),
    [(3, 7, 3, 128, 12), (2, 33, 5, 64, 12), (1, 100, 2, 128, 1), (2, 48, 7, 32, 16), (1, 17, 1, 128, 0)],
)
def test_they_are_those_of_float64(batch, length, count, width, taps):
    from tasks.engines.builtin.kernels.heads import heads, heads_backward
    from tasks.engines.builtin.kernels.scatter import order_of

    def normal(*shape):
        return torch.randn(shape, generator=generator, device=DEVICE)

    generator = torch.Generator(DEVICE).manual_seed(1)
    rows, channels = batch * length, count * width
    cos, sin = rotary_tables(length, width, DEVICE, torch.float32)
    products, grads = normal(rows, 3 * channels), normal(batch, length, 3, count, width)
    tokens = torch.randint(0, 9, (rows,), generator=generator, device=DEVICE)
    values = (tokens, normal(rows, channels), normal(count, taps), normal(9, channels)) if taps else None
    exact = [x.double().requires_grad_() for x in (products, *(values or ())[1:])]
    wanted, wanted_rstd = in_float64(exact[0], cos, sin, 1.2, values and (tokens, *exact[1:]), batch, count)
    wanted.backward(grads.double().view_as(wanted))

    guarded = torch.cat([products, normal(32, 3 * channels)])
    beyond, qkv = guarded[rows:].clone(), guarded[:rows]
    rstd = heads(qkv, cos, sin, length, 1.2, values)
    d_table, order = torch.zeros(9, channels, device=DEVICE), order_of(tokens)
    of_table = d_table if taps else None
    packed = grads.unbind(2)
    d_qkv, d_logit = heads_backward(
        (*packed[:2], packed[2].contiguous()) if taps else packed,
        qkv,
        rstd,
        cos,
        sin,
        length,
        1.2,
        values,
        of_table,
        order,
    )
    pairs = [(qkv, wanted), (rstd, wanted_rstd), (d_qkv, exact[0].grad)]
    if taps:
        pairs += [(d_table, exact[3].grad), (d_logit.T @ values[1][:, :taps], exact[2].grad)]
    for got, right in pairs:
        assert (got.double() - right).norm() < 1e-5 * right.norm()
    assert torch.equal(guarded[rows:], beyond)


@GPU
def test_a_micro_batch_may_have_more_tiles_than_a_grid_is_high():
    from tasks.engines.builtin.kernels.heads import heads, heads_backward
    from tasks.engines.builtin.kernels.scatter import order_of

    length, batch = 32, 65_537
    cos, sin = rotary_tables(length, 128, DEVICE, torch.bfloat16)
    qkv = torch.ones(batch * length, 3 * 128, dtype=torch.bfloat16, device=DEVICE)
    rstd = heads(qkv, cos, sin, length, 1.2, None)
    grads = qkv.view(batch, length, 3, 1, 128).unbind(2)
    order = order_of(torch.zeros(batch * length, dtype=torch.int32, device=DEVICE))
    d_qkv, _ = heads_backward(grads, qkv, rstd, cos, sin, length, 1.2, None, None, order)
    for made in (qkv, rstd, d_qkv):
        assert torch.equal(made[-length:], made[:length]) and made[1].ne(1).any()
