"""Products with much to do at their end, for Hopper: the derivative of squared ReLU, and rotary positions with head norms.

In Gluon, the lower half of Triton. One warp loads tiles; two groups of four warps multiply, each for 64 of a tile's 128 rows, and go
at their own pace: while one finishes its half, the other has the tensor cores for itself. A kernel of plain Triton stops multiplying
instead. `relu2.py` and `heads.py` compute the same for other GPUs. (Squared ReLU itself has so little to do that plain Triton is faster.)

    a (M, K), b (N, K) -> out (M, N), all bf16; h as out
    tile (ROWS, COLUMNS); a stage of the pipeline (ROWS, DEPTH) of a and (COLUMNS, DEPTH) of b
    Of a tile each group has (HALF, COLUMNS) sums in fp32 and finishes (HALF, QUARTER) at a time.
    With HEADS, N = 3 C: two quarters are one head of 128; cos and sin (T, 64), rstd (M, 2, H) fp32
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tasks.engines.builtin.kernels.chip import chip_of

_fetch = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # the second until Triton 3.8
_send = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
ROWS, COLUMNS, DEPTH = gl.constexpr(128), gl.constexpr(256), gl.constexpr(64)
"""Of a tile, and how much of the sums one stage of the pipeline holds."""
HALF, QUARTER = gl.constexpr(64), gl.constexpr(64)
"""Rows of one group; columns that are finished at a time."""
GROUP = gl.constexpr(8)
"""Rows of tiles that share columns while those are in the cache."""
EPSILON = gl.constexpr(torch.finfo(torch.float32).eps)


@gluon.jit
def _place(tile, tiles_m, tiles_n):
    """The first row and column of a tile."""
    group = tile // (GROUP * tiles_n)
    height = gl.minimum(tiles_m - group * GROUP, GROUP)
    return (group * GROUP + tile % (GROUP * tiles_n) % height) * ROWS, tile % (GROUP * tiles_n) // height * COLUMNS


@gluon.jit
def _load(a_desc, b_desc, a_bufs, b_bufs, full, empty, tiles, steps, tiles_m, tiles_n, STAGES: gl.constexpr):
    """The warp that loads: a stage whenever both groups are done with it."""
    count = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = _place(tile, tiles_m, tiles_n)
        for k in range(steps):
            stage = count % STAGES
            mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
            bar = full.index(stage)
            mbarrier.expect(bar, (ROWS + COLUMNS) * DEPTH * 2)
            _fetch(a_desc, [row, k * DEPTH], bar, a_bufs.index(stage * 2))
            _fetch(a_desc, [row + HALF, k * DEPTH], bar, a_bufs.index(stage * 2 + 1))
            _fetch(b_desc, [column, k * DEPTH], bar, b_bufs.index(stage))
            count += 1


@gluon.jit
def _halves(x, N: gl.constexpr):
    # (HALF, N) -> two of (HALF, N / 2): the left and the right columns
    return x.reshape([HALF, 2, N // 2]).permute((0, 2, 1)).split()


@gluon.jit
def _put(x, buf, out_desc, row, column):
    """Send a quarter on its way to memory."""
    buf.store(x.to(gl.bfloat16))
    fence_async_shared()
    _send(out_desc, [row, column], buf)


@gluon.jit
def _derivative(x, buf, out_desc, row, column):
    """A quarter times 2 sqrt(h), over h."""
    h = buf.load(x.type.layout).to(gl.float32)
    root = gl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=r,r", [h], dtype=gl.float32, is_pure=True, pack=1)
    _put(x * (2 * root), buf, out_desc, row, column)


@gluon.jit
def _head(left, right, one, other, out_desc, row, column, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, SCALE: gl.constexpr):
    """One head of queries or keys: rotate, norm, scale; keep 1/rms. Values pass."""
    head = column // 128
    if head < heads:
        layout: gl.constexpr = left.type.layout
        r = row + gl.arange(0, HALF, gl.SliceLayout(1, layout))
        d = gl.arange(0, QUARTER, gl.SliceLayout(0, layout))
        place = (r % T)[:, None] * QUARTER + d[None, :]
        cos = gl.load(cos_ptr + place).to(gl.float32)  # (HALF, QUARTER), as left and right
        sin = gl.load(sin_ptr + place).to(gl.float32)
        new_left = left * cos + right * sin
        new_right = right * cos - left * sin
        # (HALF, QUARTER) -> (HALF,)
        rstd = gl.rsqrt(gl.sum(new_left * new_left + new_right * new_right, 1) / 128 + EPSILON)
        gl.store(rstd_ptr + r * heads + head, rstd, r < M)
        scale = (rstd * SCALE)[:, None]
        left = new_left * scale
        right = new_right * scale
    _put(left, one, out_desc, row, column)
    _put(right, other, out_desc, row, column + QUARTER)


@gluon.jit
def _multiply(
    half: gl.constexpr, a_bufs, b_bufs, bufs, h_desc, out_desc, full, empty, h_bars, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, tiles,
    steps, tiles_m, tiles_n, HEADS: gl.constexpr, STAGES: gl.constexpr, QUARTERS: gl.constexpr, SCALE: gl.constexpr,
):  # fmt: skip
    """A group of warps: its half of every tile, and what comes at its end. Of `bufs` it has QUARTERS."""
    layout: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 256, 16])
    count = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = _place(tile, tiles_m, tiles_n)
        row += half * HALF
        sums = gl.zeros([HALF, COLUMNS], gl.float32, layout)
        for k in range(steps):
            stage = count % STAGES
            mbarrier.wait(full.index(stage), (count // STAGES) & 1)
            sums = warpgroup_mma(
                a_bufs.index(stage * 2 + half), b_bufs.index(stage).permute((1, 0)), sums, is_async=True
            )
            sums = warpgroup_mma_wait(num_outstanding=1, deps=[sums])
            if k > 0:
                mbarrier.arrive(empty.index((count + STAGES - 1) % STAGES), count=1)
            if k == 1:
                tma.store_wait(0)
                if not HEADS:
                    mbarrier.expect(h_bars.index(half), HALF * COLUMNS * 2)
                    for q in gl.static_range(4):
                        _fetch(h_desc, [row, column + q * QUARTER], h_bars.index(half), bufs.index(half * QUARTERS + q))
            count += 1
        sums = warpgroup_mma_wait(num_outstanding=0, deps=[sums])
        mbarrier.arrive(empty.index((count + STAGES - 1) % STAGES), count=1)
        left, right = _halves(sums, COLUMNS)  # (HALF, 256) -> (HALF, 128)
        q0, q1 = _halves(left, COLUMNS // 2)  # -> (HALF, QUARTER)
        q2, q3 = _halves(right, COLUMNS // 2)
        first = half * QUARTERS
        if HEADS:
            one = bufs.index(first)
            two = bufs.index(first + 1)
            _head(q0, q1, one, two, out_desc, row, column, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, SCALE)
            tma.store_wait(0)
            _head(q2, q3, one, two, out_desc, row, column + 128, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, SCALE)
        else:
            mbarrier.wait(h_bars.index(half), (count // steps + 1) & 1)
            _derivative(q0, bufs.index(first), out_desc, row, column)
            _derivative(q1, bufs.index(first + 1), out_desc, row, column + QUARTER)
            _derivative(q2, bufs.index(first + 2), out_desc, row, column + 2 * QUARTER)
            _derivative(q3, bufs.index(first + 3), out_desc, row, column + 3 * QUARTER)
    tma.store_wait(0)


@gluon.jit
def _product(
    a_desc, b_desc, h_desc, out_desc, cos_ptr, sin_ptr, rstd_ptr, M, N, K, T, heads, HEADS: gl.constexpr, STAGES: gl.constexpr,
    QUARTERS: gl.constexpr, SCALE: gl.constexpr,
):  # fmt: skip
    """Persistent tiles of a b^T, for a (M, K) and b (N, K)."""
    a_bufs = gl.allocate_shared_memory(gl.bfloat16, [STAGES * 2, HALF, DEPTH], a_desc.layout)
    b_bufs = gl.allocate_shared_memory(gl.bfloat16, [STAGES, COLUMNS, DEPTH], b_desc.layout)
    bufs = gl.allocate_shared_memory(gl.bfloat16, [2 * QUARTERS, HALF, QUARTER], out_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    h_bars = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    mbarrier.init(h_bars.index(0), count=1)
    mbarrier.init(h_bars.index(1), count=1)
    fence_async_shared()
    steps = gl.cdiv(K, DEPTH)
    tiles_m = gl.cdiv(M, ROWS)
    tiles_n = gl.cdiv(N, COLUMNS)
    tiles = tiles_m * tiles_n
    gl.warp_specialize(
        [
            (_multiply, (0, a_bufs, b_bufs, bufs, h_desc, out_desc, full, empty, h_bars, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, tiles,
                         steps, tiles_m, tiles_n, HEADS, STAGES, QUARTERS, SCALE)),
            (_multiply, (1, a_bufs, b_bufs, bufs, h_desc, out_desc, full, empty, h_bars, cos_ptr, sin_ptr, rstd_ptr, M, T, heads, tiles,
                         steps, tiles_m, tiles_n, HEADS, STAGES, QUARTERS, SCALE)),
            (_load, (a_desc, b_desc, a_bufs, b_bufs, full, empty, tiles, steps, tiles_m, tiles_n, STAGES)),
        ],
        [4, 1],
        [232, 24],
    )  # fmt: skip


def _describe(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    shape = [rows, columns]
    return TensorDescriptor.from_tensor(x, shape, gl.NVMMASharedLayout.get_default_for(shape, gl.bfloat16))


def _launch(
    a: Tensor,
    b: Tensor,
    h: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    rstd: Tensor,
    length: int,
    scale: float,
) -> Tensor:
    """a b^T with heads or (given h) squared ReLU's derivative at its end."""
    (rows, depth), columns = a.shape, b.size(0)
    out = torch.empty(rows, columns, dtype=a.dtype, device=a.device)
    quarter = _describe(out, HALF.value, QUARTER.value)
    stages, quarters = (4, 2) if h is None else (3, 4)
    _product[(chip_of(a.device).processors,)](
        _describe(a, HALF.value, DEPTH.value), _describe(b, COLUMNS.value, DEPTH.value),
        quarter if h is None else _describe(h, HALF.value, QUARTER.value), quarter, cos, sin, rstd, rows, columns, depth, length,
        2 * columns // (3 * 128), h is None, stages, quarters, scale, num_warps=4,
    )  # fmt: skip
    return out


def product_relu2_backward(d_out: Tensor, transposed: Tensor, h: Tensor) -> Tensor:
    """As `relu2.product_relu2_backward`, the same bits."""
    return _launch(d_out, transposed, h, h, h, h, 1, 1.0)


def product_heads(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, length: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q, k, v (M, 3 C) = x weight^T, with the rotation and norm of `heads.heads` on q and k before they are rounded.

    x (M, K) of sequences of `length`, weight (3 C, K), cos and sin (length, 64). Returns also 1/rms (M, 2, H) fp32.
    """
    rstd = torch.empty(x.size(0), 2, weight.size(0) // 384, dtype=torch.float32, device=x.device)
    return _launch(x, weight, None, cos, sin, rstd, length, scale), rstd
