"""Kernels over rows of activations (M tokens, C channels): residual mix with RMS norm, embedding with smear, and their backward.

One program handles one row. Results that only fp8 products read are written in fp8 at once (`low.py` says how).

    x, y, mix, norm and their gradients (M, C); rstd (M,) fp32; a, b 0-d fp32; first (M, FIRST)
    `weigh`: parts (count, M, C), products (count, M) -> (count,)
    `embed`: tokens (B, T), table (V, C), gate (1, CHANNELS), smear (1,)
    One program per row: c (BLOCK,) with BLOCK >= C.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tasks.engines.builtin.kernels.low import NORM_LIMIT, Slot, first_or, store_low
from tasks.engines.builtin.kernels.scatter import Order, add_rows

EPSILON = tl.constexpr(torch.finfo(torch.float32).eps)
FIRST = 16
"""Channels of a norm that are kept in bf16 beside an fp8 one: the value gates read them."""


@triton.jit
def _mix_norm(
    x_ptr,
    y_ptr,
    a_ptr,
    b_ptr,
    mix_ptr,
    norm_ptr,
    rstd_ptr,
    first_ptr,
    factor,
    C,
    MIX: tl.constexpr,
    STORE_MIX: tl.constexpr,
    LOW: tl.constexpr,
    FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
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
    rstd = tl.rsqrt(tl.sum(x * x, 0) / C + EPSILON)  # (BLOCK,) -> scalar
    tl.store(rstd_ptr + row, rstd)
    if LOW:
        tl.store(first_ptr + row * FIRST + c, (x * rstd).to(first_ptr.dtype.element_ty), c < FIRST)
    tl.store(norm_ptr + row * C + c, (x * (rstd * factor)).to(norm_ptr.dtype.element_ty), inside)


def _mix_and_norm(
    x: Tensor, mix: tuple[Tensor, Tensor, Tensor] | None, store_mix: bool, low: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, channels = x.shape  # M, C
    normed = torch.empty_like(x, dtype=torch.float8_e4m3fn if low else x.dtype)
    mixed = torch.empty_like(x) if store_mix else x
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    first = torch.empty(rows, FIRST, dtype=x.dtype, device=x.device) if low else normed
    y, a, b = mix or (x, x, x)
    factor = NORM_LIMIT / channels**0.5 if low else 1.0
    _mix_norm[(rows,)](
        x, y, a, b, mixed, normed, rstd, first, factor, channels,
        mix is not None, store_mix, low, FIRST, triton.next_power_of_2(channels),
    )  # fmt: skip
    return mixed, normed, first, rstd


def norm(x: Tensor, low: bool = False) -> tuple[Tensor, Tensor]:
    """RMS norm of the rows of x (M, C), and 1/rms (M,) fp32. With `low`, in e4m3, times 448 / sqrt(C): no norm exceeds that."""
    _, normed, _, rstd = _mix_and_norm(x, None, False, low)
    return normed, rstd


def mix_norm(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, store_mix: bool = True, low: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(z, norm(z), first channels of the norm, 1/rms) with z = a x + b y; a and b 0-d fp32 tensors, `low` as in `norm`.

    Without `store_mix`, z is not written and x comes back for it.
    """
    return _mix_and_norm(x, (y, a, b), store_mix, low)


@triton.jit
def _norm_backward(
    value_ptr,
    rstd_ptr,
    d_normed_ptr,
    dx_ptr,
    out_ptr,
    low_ptr,
    low_scale_ptr,
    amax_ptr,
    C,
    NORMED: tl.constexpr,
    LOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    place = row * C + c
    rstd = tl.load(rstd_ptr + row)
    unit = tl.load(value_ptr + place, inside, 0.0).to(tl.float32)  # (BLOCK,)
    if not NORMED:
        unit *= rstd
    dn = tl.load(d_normed_ptr + place, inside, 0.0).to(tl.float32)
    dx = tl.load(dx_ptr + place, inside, 0.0).to(tl.float32) + rstd * (dn - unit * (tl.sum(dn * unit, 0) / C))
    tl.store(out_ptr + place, dx.to(out_ptr.dtype.element_ty), inside)
    if LOW:
        store_low(dx, low_ptr, place, inside, low_scale_ptr, amax_ptr)


def norm_backward(
    value: Tensor, normed: bool, rstd: Tensor, d_normed: Tensor, dx: Tensor, slot: Slot | None = None
) -> tuple[Tensor, Tensor | None]:
    """dx (M, C) plus the gradient through norm(x), which is written over `d_normed`. `value` is norm(x) or (not `normed`) x.

    Returns: the sum, and with a slot the same in that slot's fp8.
    """
    rows, channels = dx.shape
    low = torch.empty_like(dx, dtype=slot.dtype) if slot else None
    _norm_backward[(rows,)](
        value, rstd, d_normed, dx, d_normed, *first_or(low, slot, rstd), channels,
        normed, slot is not None, triton.next_power_of_2(channels),
    )  # fmt: skip
    return d_normed, low


def _few(block: int) -> int:
    """Warps for a row of which much is read: one, with no barriers in its sums, as long as its registers hold the row."""
    return max(1, block // 2048)


@triton.jit
def _mix_norm_backward(
    x_ptr,
    y_ptr,
    rstd_ptr,
    a_ptr,
    b_ptr,
    residual_ptr,
    d_normed_ptr,
    extra_ptr,
    extra_scale_ptr,
    dx_ptr,
    sums_ptr,
    low_ptr,
    low_scale_ptr,
    amax_ptr,
    M,
    C,
    OF: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EXTRA: tl.constexpr,
    LOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    place = row * C + c
    a = tl.load(a_ptr)
    unit = tl.load(x_ptr + place, inside, 0.0).to(tl.float32)
    if OF == "parts":
        y = tl.load(y_ptr + place, inside, 0.0).to(tl.float32)
        unit = a * unit + tl.load(b_ptr) * y
        rstd = tl.rsqrt(tl.sum(unit * unit, 0) / C + EPSILON)
    else:
        rstd = tl.load(rstd_ptr + row)
    if OF != "norm":
        unit *= rstd
    dn = tl.load(d_normed_ptr + place, inside, 0.0).to(tl.float32)
    dz = rstd * (dn - unit * (tl.sum(dn * unit, 0) / C))
    if RESIDUAL:
        dz += tl.load(residual_ptr + place, inside, 0.0).to(tl.float32)
    tl.store(sums_ptr + row, tl.sum(dz * unit, 0) / rstd)
    if OF == "parts":
        tl.store(sums_ptr + M + row, tl.sum(dz * y, 0))
    dx = a * dz
    if EXTRA:
        dx += tl.load(extra_scale_ptr) * tl.load(extra_ptr + place, inside, 0.0).to(tl.float32)
    tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), inside)
    if LOW:
        store_low(dx, low_ptr, place, inside, low_scale_ptr, amax_ptr)


def mix_norm_backward(
    value: tuple[Tensor, Tensor],
    of: str,
    a: Tensor,
    b: Tensor,
    d_normed: Tensor,
    d_mixed: Tensor | None,
    extra: tuple[Tensor, Tensor] | None,
    sums: Tensor,
    slot: Slot | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Backward of `mix_norm`: the gradient of x, plus `extra` = (tensor, 0-d scale) where given; with a slot, in fp8 as well.

    `value` is, by `of`, (norm(z), 1/rms) of the "norm", (z, 1/rms) of the "mix" or (x, y) of its "parts". `sums` (2, M) fp32 takes each
    row's dz.z and, of parts, dz.y.
    """
    rows, channels = d_normed.shape
    dx = torch.empty_like(d_normed)
    low = torch.empty_like(dx, dtype=slot.dtype) if slot else None
    block = triton.next_power_of_2(channels)
    first, second = value
    extra_tensor, extra_scale = extra or (first, a)
    _mix_norm_backward[(rows,)](
        first, second, second, a, b, first if d_mixed is None else d_mixed, d_normed, extra_tensor, extra_scale, dx, sums,
        *first_or(low, slot, sums), rows, channels,
        of, d_mixed is not None, extra is not None, slot is not None, block, num_warps=_few(block),
    )  # fmt: skip
    return dx, low


@triton.jit
def _weigh(
    places_ptr,
    weights_ptr,
    x_ptr,
    out_ptr,
    products_ptr,
    M,
    C,
    COUNT: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    x = tl.load(x_ptr + row * C + c, inside, 0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(COUNT):
        part_ptr = tl.multiple_of(tl.load(places_ptr + i).to(tl.pointer_type(DTYPE)), 16)
        part = tl.load(part_ptr + row * C + c, inside, 0.0).to(tl.float32)
        total += tl.load(weights_ptr + i) * part
        tl.store(products_ptr + i * M + row, tl.sum(part * x, 0))  # (BLOCK,) -> scalar
    tl.store(out_ptr + row * C + c, total.to(out_ptr.dtype.element_ty), inside)


def weigh(parts: list[Tensor], weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of parts (M, C) bf16 by their weights (parts,) fp32, and each one's product with x (M, C): (parts,) fp32.

    In one pass, so that nothing is read and written once per part.
    """
    rows, channels = x.shape
    places = torch.empty(len(parts), dtype=torch.int64, device=x.device)
    for place, part in zip(places, parts, strict=True):
        place.fill_(
            part.data_ptr()
        )  # not a copy from the host, whose memory a CUDA graph would read again at each replay
    products = torch.empty(len(parts), rows, dtype=torch.float32, device=x.device)
    out, block = torch.empty_like(x), triton.next_power_of_2(channels)
    _weigh[(rows,)](
        places, weights, x, out, products, rows, channels, len(parts), tl.bfloat16, block, num_warps=_few(block)
    )
    return out, products.sum(-1)  # (M, C), (count, M) -> (count,)


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
    out = torch.empty(tokens.numel(), channels, dtype=table.dtype, device=table.device)  # (B, T) -> (B T, C)
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
    d_row_ptr,
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
    tl.store(d_row_ptr + row * C + c, scale * (d_unit - unit * (tl.sum(d_unit * unit, 0) / C)), inside)


def embed_backward(
    tokens: Tensor, table: Tensor, gate: Tensor, smear: Tensor, d_x0: Tensor, d_x: Tensor, d_table: Tensor, order: Order
) -> tuple[Tensor, Tensor]:
    """Backward of `embed` for the output gradient d_x0 + d_x; adds to `d_table` (fp32), in the tokens' `order`.

    Returns: the gradients of gate (1, channels) and smear (1,), fp32.
    """
    rows, channels, taps = tokens.numel(), table.size(1), gate.numel()
    d_logit = torch.empty(rows, dtype=torch.float32, device=table.device)
    d_lambda = torch.empty_like(d_logit)
    first = torch.empty(rows, taps, dtype=torch.float32, device=table.device)
    d_rows = torch.empty(rows, channels, dtype=torch.float32, device=table.device)
    block = triton.next_power_of_2(channels)
    _embed_backward[(rows,)](
        tokens, table, gate, smear, d_x0, d_x, d_rows, d_logit, d_lambda, first, tokens.size(1), channels, taps, block
    )
    add_rows(d_table, order, d_rows[:, None])  # (M, C) -> (M, 1, C)
    return (d_logit @ first).view_as(gate), d_lambda.sum().view_as(smear)  # (M,) (M, CHANNELS) -> (1, CHANNELS)
