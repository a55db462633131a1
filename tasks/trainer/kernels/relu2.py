"""Squared ReLU, by itself and fused into the product before it.

Of h = relu(z)^2 only h is kept: its derivative 2 relu(z) is 2 sqrt(h).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def _relu2(z_ptr, h_ptr, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    z = tl.maximum(tl.load(z_ptr + place, place < size, 0.0).to(tl.float32), 0.0)
    tl.store(h_ptr + place, (z * z).to(h_ptr.dtype.element_ty), place < size)


@triton.jit
def _relu2_backward(dh_ptr, h_ptr, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    h = tl.load(h_ptr + place, place < size, 0.0).to(tl.float32)
    dh = tl.load(dh_ptr + place, place < size, 0.0).to(tl.float32)
    tl.store(dh_ptr + place, (2 * dh * tl.sqrt(h)).to(dh_ptr.dtype.element_ty), place < size)


def relu2_(z: Tensor) -> Tensor:
    """relu(z)^2, over z."""
    _relu2[(triton.cdiv(z.numel(), 4096),)](z, z, z.numel(), 4096, num_warps=8)
    return z


def relu2_backward_(dh: Tensor, h: Tensor) -> Tensor:
    """The gradient of z from that of h = relu(z)^2, over dh."""
    _relu2_backward[(triton.cdiv(dh.numel(), 4096),)](dh, h, dh.numel(), 4096, num_warps=8)
    return dh


@triton.jit
def _product_relu2(
    a_desc,
    b_desc,
    h_desc,
    out_desc,
    M,
    N,
    K,
    BACKWARD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Persistent tiles of a @ b^T (forward: b (N, K)) or a @ b (backward: b (K, N)), with relu^2 or its derivative at the end."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        group = tile // (GROUP * tiles_n)
        height = tl.minimum(tiles_m - group * GROUP, GROUP)
        row = (group * GROUP + tile % (GROUP * tiles_n) % height) * BLOCK_M
        column = tile % (GROUP * tiles_n) // height * BLOCK_N
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            a = a_desc.load([row, k * BLOCK_K])
            if BACKWARD:
                sums = tl.dot(a, b_desc.load([k * BLOCK_K, column]), sums)
            else:
                sums = tl.dot(a, b_desc.load([column, k * BLOCK_K]).T, sums)
        halves = tl.permute(tl.reshape(sums, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        if BACKWARD:
            left *= 2 * tl.sqrt(h_desc.load([row, column]).to(tl.float32))
            right *= 2 * tl.sqrt(h_desc.load([row, column + BLOCK_N // 2]).to(tl.float32))
        else:
            left = tl.maximum(left, 0.0)
            left *= left
            right = tl.maximum(right, 0.0)
            right *= right
        out_desc.store([row, column], left.to(out_desc.dtype))
        out_desc.store([row, column + BLOCK_N // 2], right.to(out_desc.dtype))


TILES = (128, 256, 64, 8, 3, 8)
"""Rows, columns and depth of a tile, rows of tiles that share columns, pipeline stages, warps: the best found on an H100."""


def _launch(a: Tensor, b: Tensor, h: Tensor | None, backward: bool, tiles: tuple[int, ...]) -> Tensor:
    (rows, depth), columns = a.shape, b.size(1) if backward else b.size(0)
    block_m, block_n, block_k, group, stages, warps = tiles
    out = torch.empty(rows, columns, dtype=a.dtype, device=a.device)
    if a.is_cuda:
        programs = torch.cuda.get_device_properties(a.device).multi_processor_count
    else:
        programs = 4
    descriptor = TensorDescriptor.from_tensor
    out_desc = descriptor(out, [block_m, block_n // 2])
    _product_relu2[(programs,)](
        descriptor(a, [block_m, block_k]),
        descriptor(b, [block_k, block_n] if backward else [block_n, block_k]),
        out_desc if h is None else descriptor(h, [block_m, block_n // 2]),
        out_desc,
        rows,
        columns,
        depth,
        backward,
        block_m,
        block_n,
        block_k,
        group,
        programs,
        num_stages=stages,
        num_warps=warps,
    )
    return out


def product_relu2(x: Tensor, weight: Tensor, tiles: tuple[int, ...] = TILES) -> Tensor:
    """relu(x weight^T)^2: x (M, K), weight (N, K) -> (M, N), with sums in fp32. M, N, K multiples of 128."""
    return _launch(x, weight, None, False, tiles)


def product_relu2_backward(d_out: Tensor, weight: Tensor, h: Tensor, tiles: tuple[int, ...] = TILES) -> Tensor:
    """(d_out weight) * 2 sqrt(h): the gradient before the ReLU. d_out (M, K), weight (K, N), h (M, N) -> (M, N)."""
    return _launch(d_out, weight, h, True, tiles)
