"""Muon with its present refinements, on a stack of equal matrices at once.

Nesterov momentum, MuonEq row equilibration (arXiv 2603.28254), Polar Express orthogonalization (arXiv 2505.16932), Muon+
renormalization (arXiv 2602.21545), NorMuon variance reduction (arXiv 2510.05491), cautious weight decay (arXiv 2510.12402).
On a GPU the three elementwise parts are Triton kernels of the same arithmetic (`kernels/update.py`).
"""

import math
from collections.abc import Sequence

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


def _norms(x: Tensor, dim: int | tuple[int, int]) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)


def equilibration(x: Tensor) -> Tensor:
    """Factors (K, m, 1) that bring the rows of (K, m, n) to one norm, and each matrix to a Frobenius norm just under 1."""
    rows = _norms(x, -1)
    target = rows.square().mean(-2, keepdim=True).sqrt()
    factors = target / rows.clamp_min(1e-6)
    return factors / ((rows * factors).square().sum(-2, keepdim=True).sqrt() * 1.01 + 1e-6)


def orthogonalize(x: Tensor) -> Tensor:
    """The orthogonal factor of the polar decomposition of each equilibrated (K, m, n), approximately, in x's dtype.

    All products act on the Gram matrix of the smaller side. The linear term is added inside the last product, in fp32: on the
    polynomial's diagonal it would be rounded with it, all alike, to which the largest singular values are most sensitive.
    """
    tall = x.size(-2) > x.size(-1)
    for a, b, c in POLAR_EXPRESS:
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x


def renormalization(x: Tensor, second: Tensor, beta2: float) -> Tensor:
    """Factors (K, m, 1) or (K, 1, n) of the update; `second` takes the new mean squares in.

    Muon+ gives the Frobenius norm of an exactly orthogonal matrix; NorMuon divides each row (column) by its running root mean
    square and keeps that norm.
    """
    rows, columns = x.shape[-2:]
    reduced, size = (-1, columns) if rows >= columns else (-2, rows)
    norms = _norms(x, reduced)
    total = norms.square().sum(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-6)
    muon_plus = math.sqrt(min(rows, columns)) / total
    mean = (norms * muon_plus).square() / size
    second.lerp_(mean, 1 - beta2)
    scale = second.clamp_min(1e-10).rsqrt()
    before = mean.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (mean * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return muon_plus * scale * (before / after.clamp_min(1e-10))


def nesterov(gradients: Tensor, momentum_buffer: Tensor, momentum: float, dtype: torch.dtype) -> Tensor:
    """The look-ahead gradient in `dtype`; the buffer takes the gradients in."""
    momentum_buffer.lerp_(gradients, 1 - momentum)
    return gradients.lerp(momentum_buffer, momentum).to(dtype)


def cautious_update(parameters: Tensor, x: Tensor, factors: Tensor, lr: float, weight_decay: float) -> None:
    """parameters -= lr (u + weight_decay parameters where they agree with u in sign), u = factors x."""
    x = x.float() * factors
    agrees = (x * parameters) >= 0
    parameters.sub_(x.add_(parameters * agrees, alpha=weight_decay), alpha=lr)


def muon_rates(rows: int, columns: int, lr: float, momentum: float, weight_decay: float) -> tuple[float, float, float]:
    """Momentum, lr and weight decay of a step of (rows, columns) matrices: their lr is times sqrt(max(1, rows / columns))."""
    return momentum, lr * math.sqrt(max(1.0, rows / columns)), weight_decay


def muon_step(
    parameters: Tensor,
    gradients: Tensor,
    momentum_buffer: Tensor,
    second: Tensor,
    *,
    rates: Sequence[float] | Tensor,
    beta2: float,
    dtype: torch.dtype,
) -> None:
    """Update a stack (K, m, n) and its state in place, by the rates of `muon_rates`, on a GPU in a tensor there.

    `dtype` is what orthogonalization computes in.
    """
    if isinstance(rates, Tensor):
        from tasks.engines.builtin.kernels import update

        x = update.nesterov(gradients, momentum_buffer, rates, dtype)
        x = orthogonalize(update.scale_rows_(x, equilibration(x)))
        update.cautious_update(parameters, x, renormalization(x, second, beta2), rates)
        return
    momentum, lr, weight_decay = rates
    x = nesterov(gradients, momentum_buffer, momentum, dtype)
    x = orthogonalize((x * equilibration(x)).to(dtype))
    cautious_update(parameters, x, renormalization(x, second, beta2), lr, weight_decay)
