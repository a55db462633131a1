"""Numbers in fp8: what a scale is, how kernels write with one, and the passes that only fp8 products need.

A tensor in fp8 is the tensor times one scale, cut off at the format's limit. Norms have a scale that follows from their shape. The
others have the scale of the micro-batch before, with a margin: their largest value is recorded while they are written, so no
tensor is read once more for it. Formats: e4m3 for activations and weights, e5m2 for gradients (arXiv 2209.05433).

    scale, inverse, amax: 0-d fp32. (M, N) -> (N, M) in tiles of (BLOCK, BLOCK).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
NORM_LIMIT = 448.0
"""The largest e4m3."""
BLOCK, WARPS = 128, 8
"""Rows and columns of a tile that is transposed, and the warps for it."""


class Slot(NamedTuple):
    """One tensor's place among the scales."""

    scale: Tensor
    """0-d fp32: what the tensor is multiplied by."""
    inverse: Tensor
    """0-d fp32: 1 / scale, for the product."""
    amax: Tensor
    """0-d fp32: grows to the largest magnitude written."""
    dtype: torch.dtype


def first_or(low: Tensor | None, slot: Slot | None, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three arguments of a kernel's optional fp8 output; `other` stands in where there is none."""
    return (low, slot.scale, slot.amax) if slot is not None and low is not None else (other, other, other)


@triton.jit
def to_low(x, scale, dtype: tl.constexpr):
    """x times scale, cut off at the limit of an fp8 format."""
    limit = 448.0 if dtype == tl.float8e4nv else 57344.0
    return tl.minimum(tl.maximum(x * scale, -limit), limit).to(dtype)


@triton.jit
def record(amax_ptr, magnitude):
    """Raise amax to a magnitude; most programs find it there already and leave the memory alone."""
    if magnitude > tl.load(amax_ptr):
        tl.atomic_max(amax_ptr, magnitude, sem="relaxed")


@triton.jit
def store_low(x, ptr, place, inside, scale_ptr, amax_ptr):
    """Write x in fp8 and record its largest magnitude."""
    record(amax_ptr, tl.max(tl.abs(x)))
    tl.store(ptr + place, to_low(x, tl.load(scale_ptr), ptr.dtype.element_ty), inside)


@triton.jit
def _tile(M, N, BLOCK: tl.constexpr):
    """Places of a tile in (M, N) and in (N, M), and what of it is inside."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    return rows[:, None] * N + columns[None, :], columns[:, None] * M + rows[None, :], inside


@triton.jit
def _transpose(x_ptr, out_ptr, M, N, BLOCK: tl.constexpr):
    place, turned, inside = _tile(M, N, BLOCK)
    tl.store(out_ptr + turned, tl.trans(tl.load(x_ptr + place, inside)), tl.trans(inside))


def transpose(x: Tensor, out: Tensor | None = None) -> Tensor:
    """x (M, N) of 1-byte numbers -> (N, M), dense; into `out` where given."""
    out = x.new_empty(x.shape[::-1]) if out is None else out
    _transpose[_tiles(x)](x.view(torch.uint8), out.view(torch.uint8), *x.shape, BLOCK, num_warps=WARPS)
    return out


@triton.jit
def _quantize(x_ptr, out_ptr, turned_ptr, scale_ptr, amax_ptr, M, N, TURNED: tl.constexpr, BLOCK: tl.constexpr):
    place, turned, inside = _tile(M, N, BLOCK)
    x = tl.load(x_ptr + place, inside, 0.0).to(tl.float32)
    record(amax_ptr, tl.max(tl.abs(x)))
    low = to_low(x, tl.load(scale_ptr), out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, low, inside)
    if TURNED:
        tl.store(turned_ptr + turned, tl.trans(low), tl.trans(inside))


def quantize(x: Tensor, slot: Slot, out: Tensor, turned: Tensor | None = None) -> None:
    """Write a contiguous x (M, N) in the slot's fp8 to out (M, N), and transposed to `turned` (N, M) where given.

    That of an x in bf16 only: of one in fp32 Triton 3.6 makes a kernel for Hopper that transposes wrongly.
    """
    assert turned is None or x.dtype == torch.bfloat16
    into = out if turned is None else turned
    _quantize[_tiles(x)](x, out, into, slot.scale, slot.amax, *x.shape, turned is not None, BLOCK, num_warps=WARPS)


def _tiles(x: Tensor) -> tuple[int, int]:
    return triton.cdiv(x.size(0), BLOCK), triton.cdiv(x.size(1), BLOCK)
