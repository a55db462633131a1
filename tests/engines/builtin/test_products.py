"""Products: cuBLASLt's against fp32, how weights' gradients are cut, and what Hopper kernels finish at a product's end."""

import pytest
import torch

from tasks.engines.builtin import blas

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the products need a GPU")
HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9, reason="the kernels need a Hopper GPU"
)


def distance(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def normal(*shape, seed=1, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)


def apart(*numbers):
    """Numbers 16 bytes apart, as scales are."""
    return torch.tensor(numbers, device="cuda")[:, None].repeat(1, 4)[:, 0]


def slot(scale, dtype):
    from tasks.engines.builtin.kernels.low import Slot

    return Slot(*apart(scale, 1 / scale, 0.0), dtype)


@GPU
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_products_are_those_of_fp32(turned, dtype):
    products = blas.Blas(torch.device("cuda"))
    for rows, columns, depth in ((300, 384, 256), (4096, 1280, 640)):
        left, right, base = (
            normal(rows, depth),
            normal(depth, columns, seed=2),
            normal(rows, columns, seed=3, dtype=dtype),
        )
        wanted = left.float() @ right.float()
        a, b = (x.T.contiguous().T if turn else x for x, turn in zip((left, right), turned, strict=True))
        limit = 1e-5 if dtype == torch.float32 else 4e-3
        assert distance(products.multiply(a, b, torch.full_like(base, float("nan"))), wanted) < limit
        assert distance(products.multiply(a, b, torch.empty_like(base), base=base), wanted + base.float()) < limit
        sums = base.clone()
        assert products.multiply(a, b, sums, base=sums) is sums
        assert distance(sums, wanted + base.float()) < limit


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((5120, 1280), (4096, 1024)), ((1280, 5120), (4096, 1024)), ((6656, 1664), (4992, 1664)), ((3072, 768), (3072, 0)),
     ((1280, 1280), (1280, 0)), ((3840, 1280), (3840, 0))],
)  # fmt: skip
def test_long_gradients_of_weights_are_cut_where_their_last_wave_would_idle(shape, lengths):
    assert blas.cut_of(*shape, 132) == lengths


@GPU
@pytest.mark.parametrize("shape", [(5120, 1280), (1280, 5120), (384, 256)])
def test_gradients_in_parts_are_those_of_fp32(shape):
    rows, columns = shape
    left, right, sums = normal(2048, rows), normal(2048, columns, seed=2), normal(*shape, seed=3, dtype=torch.float32)
    wanted = sums + left.float().T @ right.float()
    blas.Blas(torch.device("cuda")).add_product(sums, left.T, right)
    assert distance(sums, wanted) < 1e-5


@HOPPER
@pytest.mark.parametrize("fast", [False, True])
def test_fp8_products_are_scaled_and_added(fast):
    products = blas.Blas(torch.device("cuda"))
    left, right = normal(2048, 512, dtype=torch.float8_e5m2), normal(768, 512, seed=2, dtype=torch.float8_e4m3fn)
    scales = torch.tensor(0.5, device="cuda"), torch.tensor(3.0, device="cuda")
    wanted = 1.5 * (left.float() @ right.float().T)
    for dtype in (torch.bfloat16, torch.float32):
        base = normal(2048, 768, seed=3, dtype=dtype)
        got = products.multiply(left, right.T, torch.empty_like(base), base=base, scales=scales, fast=fast)
        assert distance(got, wanted + base.float()) < 4e-3


@HOPPER
@pytest.mark.parametrize(("rows", "channels"), [(65_536, 1280), (1024, 256), (384, 384)])
def test_squared_relus_backward_gives_the_same_bits_on_hopper(rows, channels):
    from tasks.engines.builtin.kernels import hopper, relu2

    x, weight = normal(rows, channels), normal(4 * channels, channels, seed=2)
    h = relu2.product_relu2(x, weight)
    d_out = normal(rows, channels, seed=3)
    wanted = relu2.product_relu2_backward(d_out, weight, h)
    for _ in range(3):
        assert torch.equal(hopper.product_relu2_backward(d_out, weight, h), wanted)


@HOPPER
@pytest.mark.parametrize(("rows", "channels"), [(8192, 1280), (128, 128)])
def test_squared_relus_backward_in_fp8_gives_the_same_bits_on_hopper(rows, channels):
    from tasks.engines.builtin.kernels import hopper, relu2
    from tasks.engines.builtin.kernels.low import E4M3, E5M2

    one, other = apart(0.5, 0.25)
    weight, d_out = normal(4 * channels, channels, dtype=E4M3), normal(rows, channels, seed=2, dtype=E5M2)
    h = normal(rows, 4 * channels, seed=3).relu().to(E4M3)
    arguments = (d_out, weight, one, other, h, other)
    plain, ours = slot(3000.0, E5M2), slot(3000.0, E5M2)  # a few results are beyond the format's limit
    wanted = relu2.product_relu2_backward_low(*arguments, plain)
    for _ in range(3):
        for got, bits in zip(hopper.product_relu2_backward_low(*arguments, ours), wanted, strict=True):
            assert torch.equal(got.view(torch.uint8), bits.view(torch.uint8))
    assert plain.amax == ours.amax > 0


@HOPPER
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_numbers_are_cast_to_fp8_and_transposed(dtype):
    from tasks.engines.builtin.kernels.low import E4M3, quantize, transpose

    x, into = normal(1000, 384, dtype=dtype), slot(100.0, E4M3)
    low = torch.empty(1000, 384, dtype=E4M3, device="cuda")
    turned = low.new_empty(384, 1000)
    quantize(x, into, low, turned if dtype == torch.bfloat16 else None)
    assert torch.equal(low.view(torch.uint8), (x.float() * 100).clamp(-448, 448).to(E4M3).view(torch.uint8))
    assert into.amax == x.abs().max()
    for got in (turned, transpose(low)) if dtype == torch.bfloat16 else (transpose(low, turned),):
        assert torch.equal(got.view(torch.uint8), low.view(torch.uint8).T)


@HOPPER
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize(("batch", "length", "count"), [(32, 2048, 10), (3, 200, 3), (1, 128, 1)])
def test_queries_and_keys_are_rotated_and_normed_at_their_products_end(batch, length, count, low):
    from tasks.engines.builtin.kernels.heads import heads
    from tasks.engines.builtin.kernels.hopper import product_heads
    from tasks.engines.builtin.model import rotary_tables

    channels = 128 * count
    dtype = torch.float8_e4m3fn if low else torch.bfloat16
    x, weight = normal(batch * length, channels, dtype=dtype), normal(3 * channels, channels, seed=2, dtype=dtype)
    inverses = (torch.tensor(0.5, device="cuda"), torch.tensor(3.0, device="cuda")) if low else None
    cos, sin = rotary_tables(length, 128, torch.device("cuda"), torch.bfloat16)
    qkv, rstd = product_heads(x, weight, cos, sin, length, 1.2, inverses)
    products = blas.Blas(torch.device("cuda"))
    wanted = products.multiply(x, weight.T, torch.empty_like(qkv), scales=inverses, fast=low)
    wanted_rstd = heads(wanted, cos, sin, length, 1.2, None)
    for got, part in zip(qkv.chunk(3, 1), wanted.chunk(3, 1), strict=True):
        assert distance(got, part) < 5e-3
    assert distance(rstd, wanted_rstd) < 5e-3
