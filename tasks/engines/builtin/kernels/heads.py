"""Kernels over heads: rotary positions, norm of queries and keys and the gated value embedding, in place in the packed q, k, v.

M = B T tokens, C = H D channels, D = 2 HALF
qkv    (M, 3 C)     q, k, v of a token side by side, each (H, D)
cos    (T, HALF)    sin likewise
rstd   (M, 2, H)    fp32, 1/rms of the rotated q and k
gate   (H, CHANNELS), table (V, C): weights of the value gate, value embeddings
One program per token: h (BLOCK_H,) with BLOCK_H >= H, d (HALF,).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tasks.engines.builtin.kernels.low import Slot, first_or, record, to_low
from tasks.engines.builtin.kernels.scatter import Order, add_rows

EPSILON = tl.constexpr(torch.finfo(torch.float32).eps)


@triton.jit
def _rotate_norm(base_ptr, rstd_ptr, cos, sin, h, d, H, HALF: tl.constexpr, SCALE: tl.constexpr):
    """One token's queries (or keys): rotate, norm, scale, in place; keep 1/rms."""
    inside = (h < H)[:, None]
    place = base_ptr + h[:, None] * (2 * HALF) + d[None, :]
    left = tl.load(place, inside, 0.0).to(tl.float32)  # (BLOCK_H, HALF)
    right = tl.load(place + HALF, inside, 0.0).to(tl.float32)
    new_left = left * cos + right * sin
    new_right = right * cos - left * sin
    # (BLOCK_H, HALF) -> (BLOCK_H,)
    rstd = tl.rsqrt((tl.sum(new_left * new_left, 1) + tl.sum(new_right * new_right, 1)) / (2 * HALF) + EPSILON)
    scale = (rstd * SCALE)[:, None]
    tl.store(place, (new_left * scale).to(base_ptr.dtype.element_ty), inside)
    tl.store(place + HALF, (new_right * scale).to(base_ptr.dtype.element_ty), inside)
    tl.store(rstd_ptr + h, rstd, h < H)


@triton.jit
def _gates(x_ptr, gate_ptr, h, H, CHANNELS: tl.constexpr):
    """3 sigmoid(w x) of each head, from the token's first channels."""
    j = tl.arange(0, 16)
    x = tl.load(x_ptr + j, j < CHANNELS, 0.0).to(tl.float32)  # (16,)
    weight = tl.load(gate_ptr + h[:, None] * CHANNELS + j[None, :], (h < H)[:, None] & (j < CHANNELS)[None, :], 0.0)
    return 3 * tl.sigmoid(tl.sum(weight * x[None, :], 1))  # (BLOCK_H, 16) -> (BLOCK_H,)


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
    T,
    C,
    H,
    ROTATE: tl.constexpr,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCALE: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    base = qkv_ptr + row * 3 * C
    if ROTATE:
        d = tl.arange(0, HALF)
        cos = tl.load(cos_ptr + (row % T) * HALF + d).to(tl.float32)[None, :]  # (1, HALF)
        sin = tl.load(sin_ptr + (row % T) * HALF + d).to(tl.float32)[None, :]
        _rotate_norm(base, rstd_ptr + row * 2 * H, cos, sin, h, d, H, HALF, SCALE)
        _rotate_norm(base + C, rstd_ptr + (row * 2 + 1) * H, cos, sin, h, d, H, HALF, SCALE)
    if VALUES:
        gate = _gates(x_ptr + row * x_stride, gate_ptr, h, H, CHANNELS)
        full = tl.arange(0, 2 * HALF)
        inside = (h < H)[:, None]
        place = h[:, None] * (2 * HALF) + full[None, :]
        token = tl.load(tokens_ptr + row).to(tl.int64)
        value = tl.load(base + 2 * C + place, inside, 0.0).to(tl.float32)  # (BLOCK_H, D)
        value += gate[:, None] * tl.load(table_ptr + token * C + place, inside, 0.0).to(tl.float32)
        tl.store(base + 2 * C + place, value.to(qkv_ptr.dtype.element_ty), inside)


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
    _heads[(rows,)](
        qkv, cos, sin, rstd, tokens, x, x.stride(0), gate, table, length, channels, count,
        rotate, values is not None, taps, scale, half, triton.next_power_of_2(count),
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
    grad_stride,
    unit_ptr,
    rstd_ptr,
    out_ptr,
    low_scale,
    cos,
    sin,
    h,
    d,
    H,
    HALF: tl.constexpr,
    SCALE: tl.constexpr,
    LOW: tl.constexpr,
):
    inside = (h < H)[:, None]
    grad = grad_ptr + h[:, None] * grad_stride + d[None, :]
    place = h[:, None] * (2 * HALF) + d[None, :]
    d_left = tl.load(grad, inside, 0.0).to(tl.float32)  # (BLOCK_H, HALF), as the three below
    d_right = tl.load(grad + HALF, inside, 0.0).to(tl.float32)
    left = tl.load(unit_ptr + place, inside, 0.0).to(tl.float32) / SCALE
    right = tl.load(unit_ptr + place + HALF, inside, 0.0).to(tl.float32) / SCALE
    along = ((tl.sum(d_left * left, 1) + tl.sum(d_right * right, 1)) / (2 * HALF))[:, None]  # (BLOCK_H, 1)
    scale = (tl.load(rstd_ptr + h, h < H, 0.0) * SCALE)[:, None]
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
    T,
    C,
    H,
    VALUES: tl.constexpr,
    LOW: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCALE: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    d = tl.arange(0, HALF)
    cos = tl.load(cos_ptr + (row % T) * HALF + d).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + (row % T) * HALF + d).to(tl.float32)[None, :]
    base = qkv_ptr + row * 3 * C
    low_scale = tl.load(low_scale_ptr) if LOW else 1.0
    out = out_ptr + row * 3 * C
    rstd = rstd_ptr + row * 2 * H
    of_q = _rotate_norm_backward(
        dq_ptr + row * token_stride, head_stride, base, rstd, out, low_scale, cos, sin, h, d, H, HALF, SCALE, LOW
    )
    of_k = _rotate_norm_backward(
        dk_ptr + row * token_stride,
        head_stride,
        base + C,
        rstd + H,
        out + C,
        low_scale,
        cos,
        sin,
        h,
        d,
        H,
        HALF,
        SCALE,
        LOW,
    )
    full = tl.arange(0, 2 * HALF)
    inside = (h < H)[:, None]
    place = h[:, None] * (2 * HALF) + full[None, :]
    dv = tl.load(dv_ptr + row * token_stride + h[:, None] * head_stride + full[None, :], inside, 0.0).to(tl.float32)
    of_v = _put(dv, out + 2 * C + place, inside, low_scale, LOW)
    if LOW:
        record(amax_ptr, tl.maximum(tl.maximum(of_q, of_k), of_v))
    if VALUES:
        gate = _gates(x_ptr + row * x_stride, gate_ptr, h, H, CHANNELS)
        token = tl.load(tokens_ptr + row).to(tl.int64)
        embedding = tl.load(table_ptr + token * C + place, inside, 0.0).to(tl.float32)
        d_gate = tl.sum(dv * embedding, 1)  # (BLOCK_H, D) -> (BLOCK_H,)
        tl.store(d_logit_ptr + row * H + h, d_gate * gate * (1 - gate / 3), h < H)
        tl.store(gates_ptr + row * H + h, gate, h < H)


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
    dq, dk, dv = (_like_first(grads[0], grad) for grad in grads)  # (B, T, H, D) each
    rows, channels, half = qkv.size(0), qkv.size(1) // 3, cos.size(1)
    count = channels // (2 * half)
    out = torch.empty_like(qkv, dtype=slot.dtype if slot else qkv.dtype)
    _, low_scale, amax = first_or(out, slot, rstd)
    d_logit, gates = torch.empty(2, rows, count, dtype=torch.float32, device=qkv.device) if values else (None, None)
    tokens, x, gate, table = values or (qkv, qkv, qkv, qkv)
    taps = gate.size(1) if values else 1
    _heads_backward[(rows,)](
        dq, dk, dv, dq.stride(1), dq.stride(2), qkv, cos, sin, rstd, tokens, x, x.stride(0), gate, table, out, low_scale, amax,
        qkv if d_logit is None else d_logit, qkv if gates is None else gates, length, channels, count,
        values is not None, slot is not None, taps, scale, half, triton.next_power_of_2(count),
    )  # fmt: skip
    if d_table is not None:
        add_rows(d_table, order, dv.view(rows, count, 2 * half), gates)  # (B, T, H, D) -> (M, H, D)
    return out, d_logit


def _like_first(first: Tensor, grad: Tensor) -> Tensor:
    """Tokens must be one stride apart across the batch, and the same for all three."""
    flat = grad.stride(3) == 1 and grad.stride(0) == grad.size(1) * grad.stride(1) and grad.stride() == first.stride()
    return grad if flat else grad.contiguous()
