"""Muon with its present refinements, on a stack of equal matrices at once.

Nesterov momentum, MuonEq row equilibration (arXiv 2603.28254), Polar Express orthogonalization (arXiv 2505.16932), Muon+
renormalization (arXiv 2602.21545), NorMuon variance reduction (arXiv 2510.05491), cautious weight decay (arXiv 2510.12402).
"""

import math

import torch
from torch import Tensor

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Odd polynomials a x + b x^3 + c x^5, five iterations with safety factor 2e-2 and cushion 2."""


def second_moment_shape(count: int, rows: int, columns: int) -> tuple[int, int, int]:
    """A mean square per row of a tall or square matrix, per column of a wide one."""
    return (count, rows, 1) if rows >= columns else (count, 1, columns)


def orthogonalize(x: Tensor) -> Tensor:
    """The orthogonal factor of the polar decomposition of each (K, m, n), approximately, in x's dtype.

    Rows are first brought to one norm. All three products of an iteration act on the smaller side's Gram matrix.
    """
    rows = x.float().square().sum(-1, keepdim=True)
    target = (rows.sum(-2, keepdim=True) / x.size(-2)).sqrt()
    x = x * (target / rows.sqrt().clamp_min(1e-6)).to(x.dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    tall = x.size(-2) > x.size(-1)
    for a, b, c in POLAR_EXPRESS:
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x


def muon_step(
    parameters: Tensor,
    gradients: Tensor,
    momentum_buffer: Tensor,
    second: Tensor,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    weight_decay: float,
    dtype: torch.dtype,
) -> None:
    """Update a stack (K, m, n) and its state in place; `gradients` is overwritten. The lr is scaled by sqrt(max(1, m / n)) here.

    `dtype` is what orthogonalization computes in.
    """
    rows, columns = parameters.shape[-2:]
    momentum_buffer.lerp_(gradients, 1 - momentum)
    x = orthogonalize(gradients.lerp_(momentum_buffer, momentum).to(dtype)).to(parameters.dtype)
    # Muon+: the Frobenius norm of an exactly orthogonal matrix
    norms = x.square().sum(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-6)
    x = x.mul_(math.sqrt(min(rows, columns)) / norms)
    # NorMuon: each row (column) over its running root mean square, the whole at its former norm
    reduced = -1 if rows >= columns else -2
    mean = x.square().mean(dim=reduced, keepdim=True)
    second.lerp_(mean, 1 - beta2)
    scale = second.clamp_min(1e-10).rsqrt_()
    before = mean.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (mean * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    x = x.mul_(scale * (before / after.clamp_min(1e-10)))
    # cautious weight decay: only where update and weight agree in sign
    lr *= math.sqrt(max(1.0, rows / columns))
    agrees = (x * parameters) >= 0
    parameters.sub_(x.add_(parameters * agrees, alpha=weight_decay), alpha=lr)
