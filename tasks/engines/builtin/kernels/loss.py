"""Soft-capped cross-entropy of a piece of the logits, and its gradient written over them.

Capped logits lie within +-cap, so the sum of exponentials needs no running maximum: exp(15) times any vocabulary fits fp32. What
holds the kernel up is not memory but functions: three for each logit of the first pass (two of them for tanh), two of the second.

    logits (R, VP) of R tokens, targets (R,), losses (R,) fp32, low (R, VP) in fp8
    One program per row; c (BLOCK,) runs over the vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tasks.engines.builtin.kernels.low import to_low

LOW_SCALE = 2.0**15
"""What a loss's gradient, which lies within +-1, is multiplied by in e5m2."""


@triton.jit
def _capped(logits, CAP: tl.constexpr):
    """tanh(logits / cap)."""
    return 2 * tl.sigmoid(logits * (2 / CAP)) - 1


@triton.jit
def _nearly_capped(logits, CAP: tl.constexpr):
    """The same as the hardware has it, at most 2^-11 of it away: enough for a gradient that is rounded to bf16."""
    return tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=r,r", [logits * (1 / CAP)], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _cross_entropy(
    logits_ptr,
    targets_ptr,
    losses_ptr,
    low_ptr,
    scale,
    V,
    VP,
    CAP: tl.constexpr,
    GRADIENT: tl.constexpr,
    LOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    base = logits_ptr + row * VP
    target = tl.load(targets_ptr + row).to(tl.int32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        c = start + tl.arange(0, BLOCK)
        tanh = _capped(tl.load(base + c, c < V, 0.0).to(tl.float32), CAP)  # (BLOCK,)
        total += tl.where(c < V, tl.exp(CAP * tanh), 0.0)
    log_sum = tl.log(tl.sum(total, 0))  # (BLOCK,) -> scalar
    at_target = tl.load(base + tl.maximum(target, 0)).to(tl.float32)
    loss = log_sum - CAP * _capped(at_target, CAP)
    tl.store(losses_ptr + row, tl.where(target >= 0, loss, 0.0))
    if GRADIENT:
        tl.debug_barrier()
        factor = tl.where(target >= 0, scale, 0.0)
        for start in range(0, VP, BLOCK):
            c = start + tl.arange(0, BLOCK)
            tanh = _nearly_capped(tl.load(base + c, c < VP, 0.0).to(tl.float32), CAP)
            probability = tl.exp(CAP * tanh - log_sum)
            gradient = tl.where(c == target, probability - 1, probability) * (1 - tanh * tanh) * factor
            gradient = tl.where(c < V, gradient, 0.0)
            if LOW:
                tl.store(low_ptr + row * VP + c, to_low(gradient, 1.0, low_ptr.dtype.element_ty), c < VP)
            else:
                tl.store(base + c, gradient.to(logits_ptr.dtype.element_ty), c < VP)


def cross_entropy(
    logits: Tensor, targets: Tensor, vocab_size: int, cap: float, scale: float | None, low: Tensor | None = None
) -> Tensor:
    """Nats (R,) fp32 of the rows of logits (R, padded vocabulary); a target of -1 gives 0.

    With a `scale`, the logits are overwritten by scale x the gradient of the sum of the losses; or that is written to `low`, in fp8.
    """
    rows, padded = logits.shape  # R, VP
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    _cross_entropy[(rows,)](
        logits, targets, losses, logits if low is None else low, scale or 0.0, vocab_size, padded,
        cap, scale is not None, low is not None, 4096, num_warps=16,
    )  # fmt: skip
    return losses
