"""Squared ReLU and its derivative, fused into the product before it, in bf16 or in fp8.

Of h = relu(z)^2 only h is kept: its derivative 2 relu(z) is 2 sqrt(h). In fp8 the result is also written transposed, as the next weight
gradient needs it, and its largest magnitude is recorded (`low.py`).

    a (M, K), b (N, K) -> out (M, N), turned (N, M); h as out
    tile (BLOCK_M, BLOCK_N), finished in two halves of (BLOCK_M, BLOCK_N / 2); tops (BLOCK_M,)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from tasks.engines.builtin.kernels.chip import chip_of
from tasks.engines.builtin.kernels.low import Slot, record, to_low


@triton.jit
def _halves(x, M: tl.constexpr, N: tl.constexpr):
    """The left and right half of the columns: (M, N) -> two of (M, N / 2)."""
    return tl.split(tl.permute(tl.reshape(x, (M, 2, N // 2)), (0, 2, 1)))


@triton.jit
def _sqrt(x):
    """The square root as the hardware has it; what is below 1e-38 counts as 0, which spares three operations an element."""
    return tl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _finish(
    x,
    h,
    out_desc,
    turned_desc,
    row,
    column,
    scale,
    h_inverse,
    low_scale,
    BACKWARD: tl.constexpr,
    LOW: tl.constexpr,
):
    """Squared ReLU of a tile, or (backward) the tile times the derivative, stored. Returns each row's largest magnitude."""
    if BACKWARD:
        h = h.to(tl.float32)
        x *= scale * 2 * _sqrt(h * h_inverse) if LOW else 2 * _sqrt(h)
    else:
        x = tl.maximum(x * scale if LOW else x, 0.0)
        x *= x
    if LOW:
        low = to_low(x, low_scale, out_desc.dtype)
        out_desc.store([row, column], low)
        turned_desc.store([column, row], tl.trans(low))  # (BLOCK_M, BLOCK_N / 2) -> (BLOCK_N / 2, BLOCK_M)
    else:
        out_desc.store([row, column], x.to(out_desc.dtype))
    return tl.max(tl.abs(x), 1)


@triton.jit
def _product_relu2(
    a_desc,
    b_desc,
    h_desc,
    out_desc,
    turned_desc,
    a_inverse_ptr,
    b_inverse_ptr,
    h_inverse_ptr,
    low_scale_ptr,
    amax_ptr,
    M,
    N,
    K,
    BACKWARD: tl.constexpr,
    LOW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Persistent tiles of a b^T, a (M, K), b (N, K), with relu^2 or (backward) its derivative at the end."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    scale = tl.load(a_inverse_ptr) * tl.load(b_inverse_ptr) if LOW else 1.0
    h_inverse = tl.load(h_inverse_ptr) if LOW else 1.0
    low_scale = tl.load(low_scale_ptr) if LOW else 1.0
    tops = tl.zeros((BLOCK_M,), tl.float32)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        group = tile // (GROUP * tiles_n)
        height = tl.minimum(tiles_m - group * GROUP, GROUP)
        row = (group * GROUP + tile % (GROUP * tiles_n) % height) * BLOCK_M
        column = tile % (GROUP * tiles_n) // height * BLOCK_N
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            sums = tl.dot(a_desc.load([row, k * BLOCK_K]), b_desc.load([column, k * BLOCK_K]).T, sums)
        left, right = _halves(sums, BLOCK_M, BLOCK_N)  # (BLOCK_M, BLOCK_N / 2) each
        half = column + BLOCK_N // 2
        h_left = h_desc.load([row, column]) if BACKWARD else left
        h_right = h_desc.load([row, half]) if BACKWARD else right
        top = _finish(left, h_left, out_desc, turned_desc, row, column, scale, h_inverse, low_scale, BACKWARD, LOW)
        other = _finish(right, h_right, out_desc, turned_desc, row, half, scale, h_inverse, low_scale, BACKWARD, LOW)
        tops = tl.maximum(tops, tl.maximum(top, other))
    if LOW:
        record(amax_ptr, tl.max(tops))


ROWS, COLUMNS = 128, 256
DEPTH_BYTES = 128
GROUP, STAGES, WARPS = 8, 3, 8
"""A tile, rows of tiles that share columns, pipeline stages, warps: the best found on an H100."""


def _launch(
    a: Tensor,
    b: Tensor,
    h: Tensor | None,
    low: tuple[Tensor, Tensor, Tensor, Slot] | None = None,
) -> tuple[Tensor, Tensor]:
    """The result, and with `low` = (1/scale of a, of b, of h, slot of the result) its transpose; else the result twice."""
    (rows, depth), columns = a.shape, b.size(0)  # M, K, N
    out = torch.empty(rows, columns, dtype=low[3].dtype if low else a.dtype, device=a.device)
    turned = torch.empty(columns, rows, dtype=out.dtype, device=a.device) if low else out
    programs = chip_of(a.device).processors
    depth_block, half = DEPTH_BYTES // a.element_size(), COLUMNS // 2
    describe = TensorDescriptor.from_tensor
    out_desc = describe(out, [ROWS, half])
    scalars = (low[0], low[1], low[2], low[3].scale, low[3].amax) if low else (out,) * 5
    _product_relu2[(programs,)](
        describe(a, [ROWS, depth_block]),
        describe(b, [COLUMNS, depth_block]),
        out_desc if h is None else describe(h, [ROWS, half]),
        out_desc,
        describe(turned, [half, ROWS]) if low else out_desc,
        *scalars,
        rows,
        columns,
        depth,
        h is not None,
        low is not None,
        ROWS,
        COLUMNS,
        depth_block,
        GROUP,
        programs,
        num_stages=STAGES,
        num_warps=WARPS,
    )
    return out, turned


def product_relu2(x: Tensor, weight: Tensor) -> Tensor:
    """relu(x weight^T)^2: x (M, K), weight (N, K) -> (M, N), with sums in fp32. M a multiple of 128, N of 256, K of 64."""
    return _launch(x, weight, None)[0]


def product_relu2_backward(d_out: Tensor, transposed: Tensor, h: Tensor) -> Tensor:
    """(d_out weight) * 2 sqrt(h): the gradient before the ReLU.

    d_out (M, K), the weight (K, N) transposed: (N, K), h (M, N) -> (M, N).
    """
    return _launch(d_out, transposed, h)[0]


def product_relu2_low(
    x: Tensor, weight: Tensor, x_inverse: Tensor, weight_inverse: Tensor, slot: Slot
) -> tuple[Tensor, Tensor]:
    """relu(x weight^T)^2 in fp8, (M, N), and transposed, from fp8 x and weight with their 1/scale. K a multiple of 128.

    Sums have the fewer bits that fp8 tensor cores sum with; the distance of a model's gradients from fp32 is the same either way.
    """
    return _launch(x, weight, None, (x_inverse, weight_inverse, slot.inverse, slot))


def product_relu2_backward_low(
    d_out: Tensor,
    transposed: Tensor,
    d_inverse: Tensor,
    weight_inverse: Tensor,
    h: Tensor,
    h_inverse: Tensor,
    slot: Slot,
) -> tuple[Tensor, Tensor]:
    """(d_out weight) * 2 sqrt(h) in fp8, (M, N), and transposed; the weight given transposed, h in fp8 as it was kept."""
    return _launch(d_out, transposed, h, (d_inverse, weight_inverse, h_inverse, slot))
