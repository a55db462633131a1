"""Squared ReLU and its derivative, fused into the product before it.

Of h = relu(z)^2 only h is kept: its derivative 2 relu(z) is 2 sqrt(h).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def _halves(x, M: tl.constexpr, N: tl.constexpr):
    """The left and right half of the columns."""
    return tl.split(tl.permute(tl.reshape(x, (M, 2, N // 2)), (0, 2, 1)))


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
    """Persistent tiles of a b^T, a (M, K), b (N, K), with relu^2 or (backward) its derivative at the end."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        group = tile // (GROUP * tiles_n)
        height = tl.minimum(tiles_m - group * GROUP, GROUP)
        row = (group * GROUP + tile % (GROUP * tiles_n) % height) * BLOCK_M
        column = tile % (GROUP * tiles_n) // height * BLOCK_N
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            sums = tl.dot(a_desc.load([row, k * BLOCK_K]), b_desc.load([column, k * BLOCK_K]).T, sums)
        left, right = _halves(sums, BLOCK_M, BLOCK_N)
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


def _launch(a: Tensor, b: Tensor, h: Tensor | None) -> Tensor:
    (rows, depth), columns = a.shape, b.size(0)
    block_m, block_n, block_k, group, stages, warps = TILES
    out = torch.empty(rows, columns, dtype=a.dtype, device=a.device)
    programs = torch.cuda.get_device_properties(a.device).multi_processor_count if a.is_cuda else 4
    descriptor = TensorDescriptor.from_tensor
    out_desc = descriptor(out, [block_m, block_n // 2])
    _product_relu2[(programs,)](
        descriptor(a, [block_m, block_k]),
        descriptor(b, [block_n, block_k]),
        out_desc if h is None else descriptor(h, [block_m, block_n // 2]),
        out_desc,
        rows,
        columns,
        depth,
        h is not None,
        block_m,
        block_n,
        block_k,
        group,
        programs,
        num_stages=stages,
        num_warps=warps,
    )
    return out


def product_relu2(x: Tensor, weight: Tensor) -> Tensor:
    """relu(x weight^T)^2: x (M, K), weight (N, K) -> (M, N), with sums in fp32. M, N, K multiples of 128."""
    return _launch(x, weight, None)


def product_relu2_backward(d_out: Tensor, transposed: Tensor, h: Tensor) -> Tensor:
    """(d_out weight) * 2 sqrt(h): the gradient before the ReLU.

    d_out (M, K), the weight (K, N) transposed: (N, K), h (M, N) -> (M, N).
    """
    return _launch(d_out, transposed, h)
