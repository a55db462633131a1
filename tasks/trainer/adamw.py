"""AdamW (arXiv 1711.05101): moments in the parameter's dtype, arithmetic in fp32, decoupled weight decay."""

from typing import NamedTuple

from torch import Tensor

EPSILON = 1e-10


class AdamW(NamedTuple):
    """Constants of one parameter."""

    lr: float
    beta1: float
    beta2: float
    weight_decay: float


def adamw_step(
    parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, constants: AdamW, lr_scale: float, step: int
) -> None:
    """Update `parameter` and its moments in place; `step` counts from 1, `gradient` is fp32."""
    lr = constants.lr * lr_scale
    values = parameter.float().mul_(1 - lr * constants.weight_decay)
    mean = first.float().lerp_(gradient, 1 - constants.beta1)
    square = second.float().lerp_(gradient.square(), 1 - constants.beta2)
    first.copy_(mean)
    second.copy_(square)
    denominator = square.div(1 - constants.beta2**step).sqrt_().add_(EPSILON)
    values.addcdiv_(mean, denominator, value=-lr / (1 - constants.beta1**step))
    parameter.copy_(values)
