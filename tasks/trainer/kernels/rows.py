"""Kernels over rows of activations (M tokens, C channels): residual mix with RMS norm, embedding with smear, and their backward.

One program handles one row; statistics are recomputed in fp32 from what is saved rather than stored.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

EPSILON = tl.constexpr(torch.finfo(torch.float32).eps)


@triton.jit
def _mix_norm(
    x_ptr, y_ptr, a_ptr, b_ptr, mix_ptr, norm_ptr, C, MIX: tl.constexpr, STORE_MIX: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    x = tl.load(x_ptr + row * C + c, inside, 0.0).to(tl.float32)
    if MIX:
        y = tl.load(y_ptr + row * C + c, inside, 0.0).to(tl.float32)
        x = tl.load(a_ptr) * x + tl.load(b_ptr) * y
        if STORE_MIX:
            tl.store(mix_ptr + row * C + c, x.to(mix_ptr.dtype.element_ty), inside)
    scale = tl.rsqrt(tl.sum(x * x, 0) / C + EPSILON)
    tl.store(norm_ptr + row * C + c, (x * scale).to(norm_ptr.dtype.element_ty), inside)


def _grid_and_block(x: Tensor) -> tuple[tuple[int], int, int]:
    rows, channels = x.shape
    return (rows,), channels, triton.next_power_of_2(channels)


def norm(x: Tensor) -> Tensor:
    """RMS norm of the rows of x (M, C)."""
    grid, channels, block = _grid_and_block(x)
    normed = torch.empty_like(x)
    _mix_norm[grid](x, x, x, x, x, normed, channels, False, False, block)
    return normed


def mix_norm(x: Tensor, y: Tensor, a: Tensor, b: Tensor, store_mix: bool = True) -> tuple[Tensor, Tensor]:
    """(z, norm(z)) with z = a x + b y; a and b 0-d fp32 tensors. Without `store_mix`, z is not written and x comes back for it."""
    grid, channels, block = _grid_and_block(x)
    normed = torch.empty_like(x)
    mixed = torch.empty_like(x) if store_mix else x
    _mix_norm[grid](x, y, a, b, mixed, normed, channels, True, store_mix, block)
    return mixed, normed


@triton.jit
def _mix_norm_backward(
    x_ptr,
    y_ptr,
    a_ptr,
    b_ptr,
    residual_ptr,
    normed_ptr,
    extra_ptr,
    extra_scale_ptr,
    total_ptr,
    dx_ptr,
    sums_ptr,
    M,
    C,
    MIX: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EXTRA: tl.constexpr,
    TOTAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    place = row * C + c
    x = tl.load(x_ptr + place, inside, 0.0).to(tl.float32)
    z = x
    if MIX:
        y = tl.load(y_ptr + place, inside, 0.0).to(tl.float32)
        a = tl.load(a_ptr)
        b = tl.load(b_ptr)
        z = a * x + b * y
    scale = tl.rsqrt(tl.sum(z * z, 0) / C + EPSILON)
    unit = z * scale
    dn = tl.load(normed_ptr + place, inside, 0.0).to(tl.float32)
    dz = scale * (dn - unit * (tl.sum(dn * unit, 0) / C))
    if RESIDUAL:
        dz += tl.load(residual_ptr + place, inside, 0.0).to(tl.float32)
    dx = dz
    if MIX:
        tl.store(sums_ptr + row, tl.sum(dz * x, 0))
        tl.store(sums_ptr + M + row, tl.sum(dz * y, 0))
        dx = a * dz
    if TOTAL:
        total = tl.load(total_ptr + place, inside, 0.0).to(tl.float32) + b * dz
        tl.store(total_ptr + place, total.to(total_ptr.dtype.element_ty), inside)
    if EXTRA:
        dx += tl.load(extra_scale_ptr) * tl.load(extra_ptr + place, inside, 0.0).to(tl.float32)
    tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), inside)


def norm_backward(x: Tensor, d_normed: Tensor, d_residual: Tensor) -> Tensor:
    """Gradient of x (M, C) that goes both through norm(x) and, as it is, into the residual stream. Written over `d_residual`."""
    grid, channels, block = _grid_and_block(x)
    _mix_norm_backward[grid](
        x, x, x, x, d_residual, d_normed, x, x, x, d_residual, x, len(x), channels, False, True, False, False, block
    )
    return d_residual


def mix_norm_backward(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    d_normed: Tensor,
    d_mixed: Tensor | None,
    d_y_total: Tensor | None,
    extra: tuple[Tensor, Tensor] | None,
    sums: Tensor,
) -> Tensor:
    """Backward of `mix_norm`: the gradient of x, plus `extra` = (tensor, 0-d scale) where given.

    `d_y_total` (M, C) gets the gradient of y added; `sums` (2, M) fp32 takes each row's part of the gradients of a and b.
    """
    grid, channels, block = _grid_and_block(x)
    dx = torch.empty_like(x)
    _mix_norm_backward[grid](
        x,
        y,
        a,
        b,
        x if d_mixed is None else d_mixed,
        d_normed,
        x if extra is None else extra[0],
        a if extra is None else extra[1],
        x if d_y_total is None else d_y_total,
        dx,
        sums,
        len(x),
        channels,
        True,
        d_mixed is not None,
        extra is not None,
        d_y_total is not None,
        block,
    )
    return dx


@triton.jit
def _normed_row(table_ptr, token, C, c, inside):
    x = tl.load(table_ptr + token * C + c, inside, 0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / C + EPSILON)
    return x * scale, scale


@triton.jit
def _smear_sigmoid(unit, gate_ptr, c, CHANNELS: tl.constexpr):
    weight = tl.load(gate_ptr + c, c < CHANNELS, 0.0)
    return tl.sigmoid(tl.sum(unit * weight, 0))


@triton.jit
def _embed(tokens_ptr, table_ptr, gate_ptr, lambda_ptr, out_ptr, T, C, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    unit, _ = _normed_row(table_ptr, tl.load(tokens_ptr + row).to(tl.int64), C, c, inside)
    if row % T > 0:
        before, _ = _normed_row(table_ptr, tl.load(tokens_ptr + row - 1).to(tl.int64), C, c, inside)
        unit += tl.load(lambda_ptr) * _smear_sigmoid(unit, gate_ptr, c, CHANNELS) * before
    tl.store(out_ptr + row * C + c, unit.to(out_ptr.dtype.element_ty), inside)


def embed(tokens: Tensor, table: Tensor, gate: Tensor, smear: Tensor) -> Tensor:
    """Normed embeddings (B T, C) of tokens (B, T), each with a gated part of the one before: `GPT.embed`."""
    channels = table.size(1)
    out = torch.empty(tokens.numel(), channels, dtype=table.dtype, device=table.device)
    block = triton.next_power_of_2(channels)
    _embed[(tokens.numel(),)](tokens, table, gate, smear, out, tokens.size(1), channels, gate.numel(), block)
    return out


@triton.jit
def _embed_backward(
    tokens_ptr,
    table_ptr,
    gate_ptr,
    lambda_ptr,
    dx0_ptr,
    dx_ptr,
    d_table_ptr,
    d_logit_ptr,
    d_lambda_ptr,
    first_ptr,
    T,
    C,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    token = tl.load(tokens_ptr + row).to(tl.int64)
    smear = tl.load(lambda_ptr)
    unit, scale = _normed_row(table_ptr, token, C, c, inside)
    tl.store(first_ptr + row * CHANNELS + c, unit, c < CHANNELS)
    own = tl.load(dx0_ptr + row * C + c, inside, 0.0).to(tl.float32) + tl.load(dx_ptr + row * C + c, inside, 0.0).to(
        tl.float32
    )
    d_unit = own
    d_logit = 0.0
    d_lambda = 0.0
    if row % T > 0:
        before, _ = _normed_row(table_ptr, tl.load(tokens_ptr + row - 1).to(tl.int64), C, c, inside)
        sigmoid = _smear_sigmoid(unit, gate_ptr, c, CHANNELS)
        along = tl.sum(own * before, 0)
        d_lambda = along * sigmoid
        d_logit = along * smear * sigmoid * (1 - sigmoid)
        d_unit += d_logit * tl.load(gate_ptr + c, c < CHANNELS, 0.0)
    if row % T < T - 1:
        after, _ = _normed_row(table_ptr, tl.load(tokens_ptr + row + 1).to(tl.int64), C, c, inside)
        place = (row + 1) * C + c
        d_after = tl.load(dx0_ptr + place, inside, 0.0).to(tl.float32) + tl.load(dx_ptr + place, inside, 0.0).to(
            tl.float32
        )
        d_unit += smear * _smear_sigmoid(after, gate_ptr, c, CHANNELS) * d_after
    tl.store(d_logit_ptr + row, d_logit)
    tl.store(d_lambda_ptr + row, d_lambda)
    d_row = scale * (d_unit - unit * (tl.sum(d_unit * unit, 0) / C))
    tl.atomic_add(d_table_ptr + token * C + c, d_row, inside, sem="relaxed")


def embed_backward(
    tokens: Tensor, table: Tensor, gate: Tensor, smear: Tensor, d_x0: Tensor, d_x: Tensor, d_table: Tensor
) -> tuple[Tensor, Tensor]:
    """Backward of `embed` for the output gradient d_x0 + d_x; adds to `d_table` (fp32).

    Returns: the gradients of gate (1, channels) and smear (1,), fp32.
    """
    rows, channels, taps = tokens.numel(), table.size(1), gate.numel()
    d_logit = torch.empty(rows, dtype=torch.float32, device=table.device)
    d_lambda = torch.empty_like(d_logit)
    first = torch.empty(rows, taps, dtype=torch.float32, device=table.device)
    block = triton.next_power_of_2(channels)
    _embed_backward[(rows,)](
        tokens, table, gate, smear, d_x0, d_x, d_table, d_logit, d_lambda, first, tokens.size(1), channels, taps, block
    )
    return (d_logit @ first).view_as(gate), d_lambda.sum().view_as(smear)
