"""Kernels over heads: rotary positions, norm of queries and keys and the gated value embedding, in place in the packed q, k, v.

M = B T tokens, C = H D channels, D = 2 HALF
qkv    (M, 3 C)     q, k, v of a token side by side, each (H, D)
cos    (T, HALF)    sin likewise
rstd   (M, 2, H)    fp32, 1/rms of the rotated q and k
gate   (H, CHANNELS), table (V, C): weights of the value gate, value embeddings
One program per head of ROWS tokens: row (ROWS,), d (HALF,); of a head it has the left and the right half, (ROWS, HALF) each.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tasks.engines.builtin.kernels.low import Slot, first_or, record, to_low
from tasks.engines.builtin.kernels.scatter import Order, add_rows

EPSILON = tl.constexpr(torch.finfo(torch.float32).eps)
ROWS, WARPS = 32, 8
"""Tokens of a program, and its warps: in bf16 the fastest of four on an H200."""


@triton.jit
def _tile(M, H, ROWS: tl.constexpr):
    """This program's head, its rows, and which of them there are. One dimension of programs: a second one ends at 65,535."""
    row = (tl.program_id(0) // H).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return tl.program_id(0) % H, row, (row < M)[:, None]


@triton.jit
def _halves(ptr, place, inside, HALF: tl.constexpr):
    """Both halves of a head, in fp32."""
    left = tl.load(ptr + place, inside, 0.0).to(tl.float32)
    return left, tl.load(ptr + place + HALF, inside, 0.0).to(tl.float32)


@triton.jit
def _angles(cos_ptr, sin_ptr, row, d, T, HALF: tl.constexpr):
    """cos and sin of the rows' positions, (ROWS, HALF) each."""
    place = (row % T)[:, None] * HALF + d[None, :]
    return tl.load(cos_ptr + place).to(tl.float32), tl.load(sin_ptr + place).to(tl.float32)


@triton.jit
def _rotate_norm(qkv_ptr, place, inside, rstd_ptr, row, M, cos, sin, HALF: tl.constexpr, SCALE: tl.constexpr):
    """Queries (or keys): rotate, norm, scale, in place; keep 1/rms."""
    left, right = _halves(qkv_ptr, place, inside, HALF)
    new_left = left * cos + right * sin
    new_right = right * cos - left * sin
    # (ROWS, HALF) -> (ROWS,)
    rstd = tl.rsqrt((tl.sum(new_left * new_left, 1) + tl.sum(new_right * new_right, 1)) / (2 * HALF) + EPSILON)
    scale = (rstd * SCALE)[:, None]
    tl.store(qkv_ptr + place, (new_left * scale).to(qkv_ptr.dtype.element_ty), inside)
    tl.store(qkv_ptr + place + HALF, (new_right * scale).to(qkv_ptr.dtype.element_ty), inside)
    tl.store(rstd_ptr, rstd, row < M)


@triton.jit
def _gates(x_ptr, x_stride, gate_ptr, row, inside, head, CHANNELS: tl.constexpr):
    """3 sigmoid(w x) of each token, from its first channels."""
    j = tl.arange(0, 16)
    used = (j < CHANNELS)[None, :]
    x = tl.load(x_ptr + row[:, None] * x_stride + j[None, :], inside & used, 0.0).to(tl.float32)  # (ROWS, 16)
    weight = tl.load(gate_ptr + head * CHANNELS + j[None, :], used, 0.0)  # (1, 16)
    return 3 * tl.sigmoid(tl.sum(weight * x, 1))  # (ROWS, 16) -> (ROWS,)


@triton.jit
def _embeddings(tokens_ptr, table_ptr, row, inside, column, M, C, HALF: tl.constexpr):
    """Both halves of the head of each token's value embedding."""
    token = tl.load(tokens_ptr + row, row < M, 0).to(tl.int64)
    return _halves(table_ptr, token[:, None] * C + column, inside, HALF)


@triton.jit
def _heads(
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    rstd_ptr,
    tokens_ptr,
    x_ptr,
    x_stride,
    gate_ptr,
    table_ptr,
    M,
    T,
    C,
    H,
    ROTATE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCALE: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    head, row, inside = _tile(M, H, ROWS)
    d = tl.arange(0, HALF)
    column = head * (2 * HALF) + d[None, :]
    place = row[:, None] * (3 * C) + column
    if ROTATE:
        cos, sin = _angles(cos_ptr, sin_ptr, row, d, T, HALF)
        rstd = rstd_ptr + row * 2 * H + head
        _rotate_norm(qkv_ptr, place, inside, rstd, row, M, cos, sin, HALF, SCALE)
        _rotate_norm(qkv_ptr, place + C, inside, rstd + H, row, M, cos, sin, HALF, SCALE)
    if VALUES:
        gate = _gates(x_ptr, x_stride, gate_ptr, row, inside, head, CHANNELS)[:, None]
        left, right = _halves(qkv_ptr, place + 2 * C, inside, HALF)
        of_left, of_right = _embeddings(tokens_ptr, table_ptr, row, inside, column, M, C, HALF)
        tl.store(qkv_ptr + place + 2 * C, (left + gate * of_left).to(qkv_ptr.dtype.element_ty), inside)
        tl.store(qkv_ptr + place + 2 * C + HALF, (right + gate * of_right).to(qkv_ptr.dtype.element_ty), inside)


def heads(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    length: int,
    scale: float,
    values: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    rstd: Tensor | None = None,
) -> Tensor:
    """Make products into attention's q, k, v, in place.

    qkv (M, 3 C) packed, M = B x length; cos and sin (length, D/2). `values` = (tokens, x, gate, table) on layers with a value
    embedding: tokens (M,), the layer's normed input x (M, C), gate weights (H, channels), table (V, C). With `rstd`, queries and keys
    are done already.
    Returns: 1/rms of the rotated queries and keys, (M, 2, H) fp32, which the backward needs.
    """
    if rstd is not None and values is None:
        return rstd
    rows, channels, half = qkv.size(0), qkv.size(1) // 3, cos.size(1)  # M, C, D / 2
    count, rotate = channels // (2 * half), rstd is None
    rstd = torch.empty(rows, 2, count, dtype=torch.float32, device=qkv.device) if rstd is None else rstd
    tokens, x, gate, table = values or (qkv, qkv, qkv, qkv)
    taps = gate.size(1) if values else 1
    _heads[(count * triton.cdiv(rows, ROWS),)](
        qkv, cos, sin, rstd, tokens, x, x.stride(0), gate, table, rows, length, channels, count,
        rotate, values is not None, taps, scale, half, ROWS, num_warps=WARPS,
    )  # fmt: skip
    return rstd


@triton.jit
def _put(x, ptr, inside, scale, LOW: tl.constexpr):
    """Store a gradient as it is, or in fp8. Returns its largest magnitude."""
    if LOW:
        tl.store(ptr, to_low(x, scale, ptr.dtype.element_ty), inside)
    else:
        tl.store(ptr, x.to(ptr.dtype.element_ty), inside)
    return tl.max(tl.abs(x))


@triton.jit
def _rotate_norm_backward(
    grad_ptr,
    grad_place,
    unit_ptr,
    rstd,
    out_ptr,
    place,
    inside,
    low_scale,
    cos,
    sin,
    HALF: tl.constexpr,
    SCALE: tl.constexpr,
    LOW: tl.constexpr,
):
    d_left, d_right = _halves(grad_ptr, grad_place, inside, HALF)  # (ROWS, HALF), as the two below
    left, right = _halves(unit_ptr, place, inside, HALF)
    left *= 1 / SCALE
    right *= 1 / SCALE
    along = ((tl.sum(d_left * left, 1) + tl.sum(d_right * right, 1)) / (2 * HALF))[:, None]  # (ROWS, 1)
    scale = (rstd * SCALE)[:, None]
    d_left = scale * (d_left - left * along)
    d_right = scale * (d_right - right * along)
    first = _put(d_left * cos - d_right * sin, out_ptr + place, inside, low_scale, LOW)
    second = _put(d_left * sin + d_right * cos, out_ptr + place + HALF, inside, low_scale, LOW)
    return tl.maximum(first, second)


@triton.jit
def _heads_backward(
    dq_ptr,
    dk_ptr,
    dv_ptr,
    token_stride,
    head_stride,
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    rstd_ptr,
    tokens_ptr,
    x_ptr,
    x_stride,
    gate_ptr,
    table_ptr,
    out_ptr,
    low_scale_ptr,
    amax_ptr,
    d_logit_ptr,
    gates_ptr,
    M,
    T,
    C,
    H,
    VALUES: tl.constexpr,
    LOW: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCALE: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    head, row, inside = _tile(M, H, ROWS)
    d = tl.arange(0, HALF)
    column = head * (2 * HALF) + d[None, :]
    grad = row[:, None] * token_stride + head * head_stride + d[None, :]
    place = row[:, None] * (3 * C) + column
    cos, sin = _angles(cos_ptr, sin_ptr, row, d, T, HALF)
    low_scale = tl.load(low_scale_ptr) if LOW else 1.0
    rstd_ptr += row * 2 * H + head
    rstd = tl.load(rstd_ptr, row < M, 0.0)
    of_q = _rotate_norm_backward(
        dq_ptr, grad, qkv_ptr, rstd, out_ptr, place, inside, low_scale, cos, sin, HALF, SCALE, LOW
    )
    rstd = tl.load(rstd_ptr + H, row < M, 0.0)
    of_k = _rotate_norm_backward(
        dk_ptr, grad, qkv_ptr, rstd, out_ptr, place + C, inside, low_scale, cos, sin, HALF, SCALE, LOW
    )
    left, right = _halves(dv_ptr, grad, inside, HALF)
    of_v = _put(left, out_ptr + place + 2 * C, inside, low_scale, LOW)
    other = _put(right, out_ptr + place + 2 * C + HALF, inside, low_scale, LOW)
    if LOW:
        record(amax_ptr, tl.maximum(tl.maximum(of_q, of_k), tl.maximum(of_v, other)))
    if VALUES:
        gate = _gates(x_ptr, x_stride, gate_ptr, row, inside, head, CHANNELS)
        of_left, of_right = _embeddings(tokens_ptr, table_ptr, row, inside, column, M, C, HALF)
        d_gate = tl.sum(left * of_left, 1) + tl.sum(right * of_right, 1)  # (ROWS, HALF) -> (ROWS,)
        tl.store(d_logit_ptr + row * H + head, d_gate * gate * (1 - gate / 3), row < M)
        tl.store(gates_ptr + row * H + head, gate, row < M)


def heads_backward(
    grads: tuple[Tensor, Tensor, Tensor],
    qkv: Tensor,
    rstd: Tensor,
    cos: Tensor,
    sin: Tensor,
    length: int,
    scale: float,
    values: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    d_table: Tensor | None,
    order: Order,
    slot: Slot | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Backward of `heads`: from attention's gradients (B, T, H, D), any strides as long as D is dense, to the products'.

    `qkv` is what `heads` left. `d_table` (V, C) fp32 gets the value embedding's gradient added, in the tokens' `order`.
    Returns: the gradient of qkv (M, 3 C), in fp8 with a slot, and of the gates before the sigmoid (M, H) fp32 where there are any.
    """
    dq, dk, dv = _alike(*grads)  # (B, T, H, D) each
    rows, channels, half = qkv.size(0), qkv.size(1) // 3, cos.size(1)
    count = channels // (2 * half)
    out = torch.empty_like(qkv, dtype=slot.dtype if slot else qkv.dtype)
    _, low_scale, amax = first_or(out, slot, rstd)
    d_logit, gates = torch.empty(2, rows, count, dtype=torch.float32, device=qkv.device) if values else (None, None)
    tokens, x, gate, table = values or (qkv, qkv, qkv, qkv)
    taps = gate.size(1) if values else 1
    _heads_backward[(count * triton.cdiv(rows, ROWS),)](
        dq, dk, dv, dq.stride(1), dq.stride(2), qkv, cos, sin, rstd, tokens, x, x.stride(0), gate, table, out, low_scale,
        amax, qkv if d_logit is None else d_logit, qkv if gates is None else gates, rows, length, channels, count,
        values is not None, slot is not None, taps, scale, half, ROWS, num_warps=WARPS,
    )  # fmt: skip
    if d_table is not None:
        add_rows(d_table, order, dv.view(rows, count, 2 * half), gates)  # (B, T, H, D) -> (M, H, D)
    return out, d_logit


def _alike(first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tokens must be one stride apart across the batch, and the same for all."""
    flat = first.stride(3) == 1 and first.stride(0) == first.size(1) * first.stride(1)
    grads = (first, *others)
    return grads if flat and all(x.stride() == first.stride() for x in others) else tuple(x.contiguous() for x in grads)
