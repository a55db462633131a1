"""Rows of gradients added up by token into an embedding's gradient, in the same order every time.

Atomic additions come in whatever order the GPU runs its programs, so two runs would differ in the last bits. Here positions are
sorted by token first. Each program adds up the runs of equal tokens in its piece of that order; runs that go on over several
pieces leave partial sums, which a second kernel adds up from left to right.

    tokens, places (M,) int32; rows (M, H, D), factors (M, H), table (V, C) with C = H D
    parts (pieces, 2, C) fp32, pieces = M / PIECE rounded up: partial sums at the two ends of a piece
    One program per piece and BLOCK channels: c (BLOCK,).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 64
"""Positions that one program reads one after the other."""
BLOCK = 256
"""Channels of one program."""


class Order(NamedTuple):
    """The positions of a micro-batch, sorted by token; equal tokens keep their order. Both (M,) int32."""

    tokens: Tensor
    places: Tensor


def order_of(tokens: Tensor) -> Order:
    """The order of flat tokens (M,): found once per micro-batch, used for every embedding."""
    ordered, places = torch.sort(tokens.int(), stable=True)
    return Order(ordered, places.int())


@triton.jit
def _row(rows_ptr, row_stride, head_stride, places_ptr, place, c, inside, D: tl.constexpr):
    """The row at a place in the order, (H, D) read as (C,). It is read ahead, while the one before is added."""
    row = tl.load(places_ptr + place).to(tl.int64)
    return tl.load(rows_ptr + row * row_stride + c // D * head_stride + c % D, inside, 0.0)


@triton.jit
def _sum_pieces(
    rows_ptr,
    row_stride,
    head_stride,
    factors_ptr,
    tokens_ptr,
    places_ptr,
    table_ptr,
    parts_ptr,
    M,
    C,
    H,
    FACTORS: tl.constexpr,
    D: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    piece = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < C
    first = piece * PIECE
    end = tl.minimum(first + PIECE, M)
    begins_here = tl.load(tokens_ptr + first - 1, first > 0, -1) != tl.load(tokens_ptr + first)
    total = tl.zeros((BLOCK,), tl.float32)
    ahead = _row(rows_ptr, row_stride, head_stride, places_ptr, first, c, inside, D)
    for place in range(first, end):
        x = ahead.to(tl.float32)
        ahead = _row(rows_ptr, row_stride, head_stride, places_ptr, tl.minimum(place + 1, end - 1), c, inside, D)
        row = tl.load(places_ptr + place).to(tl.int64)
        token = tl.load(tokens_ptr + place)
        if FACTORS:
            x *= tl.load(factors_ptr + row * H + c // D, inside, 0.0)
        total += x
        ends_here = tl.load(tokens_ptr + place + 1, place + 1 < M, -1) != token
        if ends_here or place == end - 1:
            if begins_here and ends_here:
                entry = table_ptr + token.to(tl.int64) * C + c
                tl.store(entry, tl.load(entry, inside) + total, inside)
            else:
                # part 0: of a run that began before this piece; part 1: of one that begins here and goes on
                part = piece * 2 + tl.where(begins_here, 1, 0)
                tl.store(parts_ptr + part.to(tl.int64) * C + c, total, inside)
            total = tl.zeros((BLOCK,), tl.float32)
            begins_here = True


@triton.jit
def _join_pieces(tokens_ptr, table_ptr, parts_ptr, M, C, PIECE: tl.constexpr, BLOCK: tl.constexpr):
    piece = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < C
    first = piece * PIECE
    end = first + PIECE
    token = tl.load(tokens_ptr + end - 1, end <= M, -1)
    goes_on = tl.load(tokens_ptr + end, end < M, -1) == token
    began_before = tl.load(tokens_ptr + first - 1, first > 0, -1) == token
    if end < M and goes_on and not began_before:
        total = tl.load(parts_ptr + (piece * 2 + 1).to(tl.int64) * C + c, inside, 0.0)
        other = piece + 1
        more = True
        while more:
            total += tl.load(parts_ptr + (other * 2).to(tl.int64) * C + c, inside, 0.0)
            other += 1
            more = tl.load(tokens_ptr + other * PIECE, other * PIECE < M, -1) == token
        entry = table_ptr + token.to(tl.int64) * C + c
        tl.store(entry, tl.load(entry, inside) + total, inside)


def add_rows(table: Tensor, order: Order, rows: Tensor, factors: Tensor | None = None) -> None:
    """table[token of m] += rows[m] (times factors[m]) for all m; table (V, C) fp32, in place.

    rows (M, H, D) with H D = C and D dense, factors (M, H) fp32.
    """
    count, heads, width = rows.shape  # M, H, D
    pieces, channels = triton.cdiv(count, PIECE), heads * width
    parts = torch.empty(pieces, 2, channels, dtype=torch.float32, device=table.device)
    grid = (pieces, triton.cdiv(channels, BLOCK))
    _sum_pieces[grid](
        rows, rows.stride(0), rows.stride(1), table if factors is None else factors, *order, table, parts,
        count, channels, heads, factors is not None, width, PIECE, BLOCK, num_warps=2,
    )  # fmt: skip
    _join_pieces[grid](order.tokens, table, parts, count, channels, PIECE, BLOCK, num_warps=2)
