"""Kernels of the optimizer: the elementwise parts of Muon and the whole of AdamW, each one pass over memory.

Muon: stacks (K, m, n) of K matrices; factors (K, m, 1) or, WIDE, (K, 1, n). One program per matrix row and BLOCK columns.
Nesterov and AdamW: any shape, read flat in blocks of (BLOCK,).
What changes from step to step is read from `rates` (4,) fp32 on the device, so that a recorded step can be replayed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


@triton.jit
def _nesterov(gradient_ptr, buffer_ptr, out_ptr, rates_ptr, size, BLOCK: tl.constexpr):
    momentum = tl.load(rates_ptr)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    gradient = tl.load(gradient_ptr + place, inside)
    buffer = tl.load(buffer_ptr + place, inside)
    buffer += (1 - momentum) * (gradient - buffer)
    tl.store(buffer_ptr + place, buffer, inside)
    tl.store(out_ptr + place, (gradient + momentum * (buffer - gradient)).to(out_ptr.dtype.element_ty), inside)


def nesterov(gradients: Tensor, momentum_buffer: Tensor, rates: Tensor, dtype: torch.dtype) -> Tensor:
    """As `muon.nesterov`; `rates` begins with the momentum."""
    out = torch.empty_like(gradients, dtype=dtype)
    _nesterov[_grid(out)](gradients, momentum_buffer, out, rates, out.numel(), BLOCK)
    return out


@triton.jit
def _scale_rows(x_ptr, factors_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = row * columns + c
    x = tl.load(x_ptr + place, c < columns).to(tl.float32) * tl.load(factors_ptr + row)
    tl.store(x_ptr + place, x.to(x_ptr.dtype.element_ty), c < columns)


def _grid_of_rows(x: Tensor) -> tuple[int, int]:
    return x.size(0) * x.size(1), triton.cdiv(x.size(2), BLOCK)  # (K, m, n) -> K m rows, blocks of n


def scale_rows_(x: Tensor, factors: Tensor) -> Tensor:
    """x (K, m, n) times factors (K, m, 1), over x."""
    _scale_rows[_grid_of_rows(x)](x, factors, x.size(-1), BLOCK)
    return x


@triton.jit
def _cautious_update(
    parameter_ptr, x_ptr, factors_ptr, rates_ptr, rows, columns, WIDE: tl.constexpr, BLOCK: tl.constexpr
):
    lr = tl.load(rates_ptr + 1)
    weight_decay = tl.load(rates_ptr + 2)
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < columns
    place = row * columns + c
    factor = tl.load(factors_ptr + row // rows * columns + c, inside) if WIDE else tl.load(factors_ptr + row)
    x = tl.load(x_ptr + place, inside).to(tl.float32) * factor
    parameter = tl.load(parameter_ptr + place, inside)
    decay = tl.where(x * parameter >= 0, weight_decay * parameter, 0.0)
    tl.store(parameter_ptr + place, parameter - lr * (x + decay), inside)


def cautious_update(parameters: Tensor, x: Tensor, factors: Tensor, rates: Tensor) -> None:
    """As `muon.cautious_update`, for contiguous stacks; `rates`: momentum, lr, weight decay."""
    rows, columns = parameters.shape[-2:]  # m, n
    _cautious_update[_grid_of_rows(x)](
        parameters, x, factors.contiguous(), rates, rows, columns, factors.size(-1) > 1, BLOCK
    )


@triton.jit
def _adamw(
    parameter_ptr,
    gradient_ptr,
    first_ptr,
    second_ptr,
    rates_ptr,
    beta1,
    beta2,
    epsilon,
    size,
    BLOCK: tl.constexpr,
):
    keep = tl.load(rates_ptr)
    step_size = tl.load(rates_ptr + 1)
    correction = tl.load(rates_ptr + 2)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    gradient = tl.load(gradient_ptr + place, inside)
    first = tl.load(first_ptr + place, inside).to(tl.float32)
    second = tl.load(second_ptr + place, inside).to(tl.float32)
    first += (1 - beta1) * (gradient - first)
    second += (1 - beta2) * (gradient * gradient - second)
    tl.store(first_ptr + place, first.to(first_ptr.dtype.element_ty), inside)
    tl.store(second_ptr + place, second.to(second_ptr.dtype.element_ty), inside)
    parameter = tl.load(parameter_ptr + place, inside).to(tl.float32) * keep
    parameter -= step_size * first / (tl.sqrt(second * correction) + epsilon)
    tl.store(parameter_ptr + place, parameter.to(parameter_ptr.dtype.element_ty), inside)


def adamw(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    rates: Tensor,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    """parameter = keep x parameter - step_size x first / (sqrt(second x correction) + epsilon), after taking the gradient in.

    `rates`: keep, step_size, correction.
    """
    _adamw[_grid(parameter)](parameter, gradient, first, second, rates, beta1, beta2, epsilon, parameter.numel(), BLOCK)
