"""Products with much to do at their end, for Hopper, in bf16 or fp8: the derivative of squared ReLU, and rotary positions with head norms.

In Gluon, the lower half of Triton. One warp loads tiles; two groups of four warps multiply, each for 64 of a tile's 128 rows, and go
at their own pace: while one finishes its half, the other has the tensor cores for itself. A kernel of plain Triton stops multiplying
instead. `relu2.py` and `heads.py` compute the same for other GPUs. (Squared ReLU itself has so little to do that plain Triton is no slower.)

    a (M, K), b (N, K) -> out (M, N), h as out: all bf16, with LOW all fp8 (q, k, v bf16 also then)
    tile (ROWS, COLUMNS); a stage of the pipeline has LINE bytes each of ROWS rows of a and of COLUMNS rows of b
    Of a tile each group has (HALF, COLUMNS) sums in fp32. It finishes them part by part:
    the derivative: (HALF, LINE bytes), four buffers a group. In bf16 each of the four parts has one. In fp8 there are two parts, and the
        other two buffers take them transposed, for turned (N, M): no part waits until another is on its way. h is loaded into the
        part's buffer while its tile is multiplied
    HEADS: (HALF, HEAD), one buffer a group, which leaves memory for a fourth stage. N = 3 C; cos and sin (T, HEAD / 2) are loaded into
        registers before the last products are there, once for both heads of a tile; rstd (M, 2, H) fp32
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
from tasks.engines.builtin.kernels.low import Slot, record

_fetch = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # the second until Triton 3.8
_send = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
_record = gluon.jit(record.fn)
TYPES = {torch.bfloat16: gl.bfloat16, torch.float8_e4m3fn: gl.float8e4nv, torch.float8_e5m2: gl.float8e5}
ROWS, COLUMNS, HALF = gl.constexpr(128), gl.constexpr(256), gl.constexpr(64)
"""Of a tile, and the rows of one group."""
LINE = gl.constexpr(128)
"""Bytes of a row in a stage of the pipeline, and in a part of the derivative."""
HEAD = gl.constexpr(128)
"""Columns of a head."""
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
    depth: gl.constexpr = a_desc.block_shape[1]
    count = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        row, column = _place(tile, tiles_m, tiles_n)
        for k in range(steps):
            stage = count % STAGES
            mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
            bar = full.index(stage)
            mbarrier.expect(bar, (ROWS + COLUMNS) * LINE)
            _fetch(a_desc, [row, k * depth], bar, a_bufs.index(stage * 2))
            _fetch(a_desc, [row + HALF, k * depth], bar, a_bufs.index(stage * 2 + 1))
            _fetch(b_desc, [column, k * depth], bar, b_bufs.index(stage))
            count += 1


@gluon.jit
def _halves(x, N: gl.constexpr):
    # (HALF, N) -> two of (HALF, N / 2): the left and the right columns
    return x.reshape([HALF, 2, N // 2]).permute((0, 2, 1)).split()


@gluon.jit
def _put(x, buf, out_desc, row, column):
    """Send a part on its way to memory."""
    buf.store(x.to(out_desc.dtype))
    fence_async_shared()
    _send(out_desc, [row, column], buf)


@gluon.jit
def _sqrt(x):
    return gl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def _derivative(x, buf, out_desc, row, column):
    """A part times 2 sqrt(h), over h."""
    h = buf.load(x.type.layout).to(gl.float32)
    _put(x * (2 * _sqrt(h)), buf, out_desc, row, column)


@gluon.jit
def _derivative_low(x, buf, other, out_desc, turned_desc, row, column, scales):
    """The same in fp8, and its transpose from the other buffer.

    Returns each row's largest magnitude (HALF,).
    """
    scale, h_inverse, low_scale = scales
    h = buf.load(x.type.layout).to(gl.float8e4nv, bitcast=True).to(gl.float32)  # in a buffer of the result's type
    x *= scale * 2 * _sqrt(h * h_inverse)
    low = (x * low_scale).to(out_desc.dtype)  # cut off at the format's limit, as by `low.to_low`
    turned = other._reinterpret(low.dtype, turned_desc.block_shape, turned_desc.layout)
    buf.store(low)
    turned.permute((1, 0)).store(low)
    fence_async_shared()
    _send(out_desc, [row, column], buf)
    _send(turned_desc, [column, row], turned)
    return gl.max(gl.abs(x), 1)


@gluon.jit
def _angles(rotary, row):
    """cos and sin of a group's rows, (HALF, HEAD / 2) each, laid out as half a head of the sums."""
    cos_ptr, sin_ptr, _, T, _ = rotary
    layout: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 16])
    r = row + gl.arange(0, HALF, gl.SliceLayout(1, layout))
    d = gl.arange(0, HEAD // 2, gl.SliceLayout(0, layout))
    place = (r % T)[:, None] * (HEAD // 2) + d[None, :]
    return gl.load(cos_ptr + place), gl.load(sin_ptr + place)


@gluon.jit
def _head(x, cos, sin, buf, out_desc, row, column, rotary, M, scale, LOW: gl.constexpr, SCALE: gl.constexpr):
    """One head of queries or keys: rotate, norm, scale; keep 1/rms. Values pass."""
    _, _, rstd_ptr, _, heads = rotary
    left, right = _halves(x, HEAD)
    layout: gl.constexpr = left.type.layout
    head = column // HEAD
    if LOW:
        left *= scale
        right *= scale
    if head < heads:
        c = gl.convert_layout(cos, layout, assert_trivial=True).to(gl.float32)
        s = gl.convert_layout(sin, layout, assert_trivial=True).to(gl.float32)
        new_left = left * c + right * s
        new_right = right * c - left * s
        # (HALF, 64) -> (HALF,)
        rstd = gl.rsqrt(gl.sum(new_left * new_left + new_right * new_right, 1) / HEAD + EPSILON)
        r = row + gl.arange(0, HALF, gl.SliceLayout(1, layout))
        gl.store(rstd_ptr + r * heads + head, rstd, r < M)
        norm = (rstd * SCALE)[:, None]
        left = new_left * norm
        right = new_right * norm
    # (HALF, 64) twice -> (HALF, 2, 64) -> (HALF, 128)
    both = gl.join(left, right).permute((0, 2, 1)).reshape([HALF, HEAD])
    tma.store_wait(0)
    _put(both, buf, out_desc, row, column)


@gluon.jit
def _multiply(
    half: gl.constexpr, a_bufs, b_bufs, bufs, h_desc, out_desc, turned_desc, full, empty, h_bars, rotary, low, M, tiles, steps, tiles_m,
    tiles_n, HEADS: gl.constexpr, LOW: gl.constexpr, STAGES: gl.constexpr, BUFFERS: gl.constexpr, SCALE: gl.constexpr,
):  # fmt: skip
    """A group of warps: its half of every tile, and what comes at its end. Of `bufs` it has BUFFERS."""
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 256, 32 if LOW else 16]
    )
    part: gl.constexpr = out_desc.block_shape[1]
    first: gl.constexpr = half * BUFFERS
    a_inverse_ptr, b_inverse_ptr, h_inverse_ptr, low_scale_ptr, amax_ptr = low
    scale = gl.load(a_inverse_ptr) * gl.load(b_inverse_ptr) if LOW else 1.0
    if LOW and not HEADS:
        scales = (scale, gl.load(h_inverse_ptr), gl.load(low_scale_ptr))
    tops = gl.zeros([HALF], gl.float32, gl.SliceLayout(1, layout))
    once = gl.minimum(steps - 1, 1)
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
            if k == once:
                tma.store_wait(0)
                if not HEADS:
                    mbarrier.expect(h_bars.index(half), HALF * LINE * (COLUMNS // part))
                    for p in gl.static_range(COLUMNS // part):
                        _fetch(h_desc, [row, column + p * part], h_bars.index(half), bufs.index(first + p))
            count += 1
        if HEADS:
            cos, sin = _angles(rotary, row)
        sums = warpgroup_mma_wait(num_outstanding=0, deps=[sums])
        mbarrier.arrive(empty.index((count + STAGES - 1) % STAGES), count=1)
        if not HEADS:
            mbarrier.wait(h_bars.index(half), (count // steps + 1) & 1)
        left, right = _halves(sums, COLUMNS)  # (HALF, 256) -> (HALF, 128)
        if HEADS:
            buf = bufs.index(half)
            _head(left, cos, sin, buf, out_desc, row, column, rotary, M, scale, LOW, SCALE)
            _head(right, cos, sin, buf, out_desc, row, column + part, rotary, M, scale, LOW, SCALE)
        elif LOW:
            b0 = bufs.index(first)
            b1 = bufs.index(first + 1)
            t0 = bufs.index(first + 2)
            t1 = bufs.index(first + 3)
            top = _derivative_low(left, b0, t0, out_desc, turned_desc, row, column, scales)
            other = _derivative_low(right, b1, t1, out_desc, turned_desc, row, column + part, scales)
            tops = gl.maximum(tops, gl.convert_layout(gl.maximum(top, other), tops.type.layout))
        else:
            q0, q1 = _halves(left, COLUMNS // 2)  # -> (HALF, 64)
            q2, q3 = _halves(right, COLUMNS // 2)
            _derivative(q0, bufs.index(first), out_desc, row, column)
            _derivative(q1, bufs.index(first + 1), out_desc, row, column + part)
            _derivative(q2, bufs.index(first + 2), out_desc, row, column + 2 * part)
            _derivative(q3, bufs.index(first + 3), out_desc, row, column + 3 * part)
    tma.store_wait(0)
    if LOW and not HEADS:
        _record(amax_ptr, gl.max(tops))


@gluon.jit
def _product(
    a_desc, b_desc, h_desc, out_desc, turned_desc, rotary, low, M, N, K, HEADS: gl.constexpr, LOW: gl.constexpr, SCALE: gl.constexpr,
):  # fmt: skip
    """Persistent tiles of a b^T, for a (M, K) and b (N, K)."""
    depth: gl.constexpr = a_desc.block_shape[1]
    STAGES: gl.constexpr = 4 if HEADS else 3
    BUFFERS: gl.constexpr = 1 if HEADS else 4
    a_bufs = gl.allocate_shared_memory(a_desc.dtype, [STAGES * 2, HALF, depth], a_desc.layout)
    b_bufs = gl.allocate_shared_memory(b_desc.dtype, [STAGES, COLUMNS, depth], b_desc.layout)
    bufs = gl.allocate_shared_memory(out_desc.dtype, [2 * BUFFERS, HALF, out_desc.block_shape[1]], out_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    h_bars = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    mbarrier.init(h_bars.index(0), count=1)
    mbarrier.init(h_bars.index(1), count=1)
    fence_async_shared()
    steps = gl.cdiv(K, depth)
    tiles_m = gl.cdiv(M, ROWS)
    tiles_n = gl.cdiv(N, COLUMNS)
    tiles = tiles_m * tiles_n
    gl.warp_specialize(
        [
            (_multiply, (0, a_bufs, b_bufs, bufs, h_desc, out_desc, turned_desc, full, empty, h_bars, rotary, low, M, tiles, steps,
                         tiles_m, tiles_n, HEADS, LOW, STAGES, BUFFERS, SCALE)),
            (_multiply, (1, a_bufs, b_bufs, bufs, h_desc, out_desc, turned_desc, full, empty, h_bars, rotary, low, M, tiles, steps,
                         tiles_m, tiles_n, HEADS, LOW, STAGES, BUFFERS, SCALE)),
            (_load, (a_desc, b_desc, a_bufs, b_bufs, full, empty, tiles, steps, tiles_m, tiles_n, STAGES)),
        ],
        [4, 1],
        [232, 24],
    )  # fmt: skip


def _describe(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    shape = [rows, columns]
    return TensorDescriptor.from_tensor(x, shape, gl.NVMMASharedLayout.get_default_for(shape, TYPES[x.dtype]))


def _launch(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    turned: Tensor | None = None,
    h: Tensor | None = None,
    low: tuple[Tensor, ...] | None = None,
    rotary: tuple[Tensor, Tensor, Tensor, int, int] | None = None,
    scale: float = 1.0,
) -> None:
    """out = a b^T with heads (given `rotary`) or (given h) the derivative of squared ReLU at its end."""
    (rows, depth), columns = a.shape, b.size(0)
    part = HEAD.value if rotary else LINE.value // out.element_size()
    stage = LINE.value // a.element_size()
    out_desc = _describe(out, HALF.value, part)
    _product[(chip_of(a.device).processors,)](
        _describe(a, HALF.value, stage), _describe(b, COLUMNS.value, stage),
        out_desc if h is None else _describe(h.view(out.dtype), HALF.value, part), out_desc,
        out_desc if turned is None else _describe(turned, part, HALF.value), rotary or (out, out, out, 1, 1), low or (out,) * 5,
        rows, columns, depth, rotary is not None, low is not None, scale, num_warps=4,
    )  # fmt: skip


def product_relu2_backward(d_out: Tensor, transposed: Tensor, h: Tensor) -> Tensor:
    """As `relu2.product_relu2_backward`, the same bits."""
    out = torch.empty_like(h)
    _launch(d_out, transposed, out, h=h)
    return out


def product_relu2_backward_low(
    d_out: Tensor,
    transposed: Tensor,
    d_inverse: Tensor,
    weight_inverse: Tensor,
    h: Tensor,
    h_inverse: Tensor,
    slot: Slot,
) -> tuple[Tensor, Tensor]:
    """As `relu2.product_relu2_backward_low`, the same bits."""
    out = torch.empty_like(h, dtype=slot.dtype)
    turned = out.new_empty(out.shape[::-1])
    _launch(d_out, transposed, out, turned, h, (d_inverse, weight_inverse, h_inverse, slot.scale, slot.amax))
    return out, turned


def product_heads(
    x: Tensor,
    weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    length: int,
    scale: float,
    inverses: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """q, k, v (M, 3 C) = x weight^T, with the rotation and norm of `heads.heads` on q and k before they are rounded to bf16.

    x (M, K) of sequences of `length`, weight (3 C, K), cos and sin (length, 64); x and weight in fp8 with `inverses`, 1/scale of each.
    Returns also 1/rms (M, 2, H) fp32.
    """
    heads = weight.size(0) // (3 * HEAD.value)
    out = torch.empty(x.size(0), weight.size(0), dtype=torch.bfloat16, device=x.device)
    rstd = torch.empty(x.size(0), 2, heads, dtype=torch.float32, device=x.device)
    low = inverses and (*inverses, rstd, rstd, rstd)
    _launch(x, weight, out, low=low, rotary=(cos, sin, rstd, length, 2 * heads), scale=scale)
    return out, rstd
