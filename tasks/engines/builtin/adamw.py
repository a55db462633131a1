"""AdamW (arXiv 1711.05101): moments in the parameter's dtype, arithmetic in fp32, decoupled weight decay."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

EPSILON = 1e-10


class AdamW(NamedTuple):
    """Constants of one parameter."""

    lr: float
    beta1: float
    beta2: float
    weight_decay: float
    epsilon: float = EPSILON


def adamw_rates(constants: AdamW, lr_scale: float, step: int) -> tuple[float, float, float]:
    """What a step, counted from 1, keeps of the parameter, its size, and the correction of the second moment."""
    lr = constants.lr * lr_scale
    return 1 - lr * constants.weight_decay, lr / (1 - constants.beta1**step), 1 / (1 - constants.beta2**step)


def adamw_step(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    constants: AdamW,
    rates: Sequence[float] | Tensor,
) -> None:
    """Update `parameter` and its moments in place; `gradient` is fp32, `rates` those of `adamw_rates`, on a GPU a tensor there."""
    if isinstance(rates, Tensor):
        from tasks.engines.builtin.kernels.update import adamw

        adamw(parameter, gradient, first, second, rates, constants.beta1, constants.beta2, constants.epsilon)
        return
    keep, step_size, correction = rates
    mean = first.float().lerp_(gradient, 1 - constants.beta1)
    square = second.float().lerp_(gradient.square(), 1 - constants.beta2)
    first.copy_(mean)
    second.copy_(square)
    denominator = (square * correction).sqrt_().add_(constants.epsilon)
    parameter.copy_((parameter.float() * keep).addcdiv_(mean, denominator, value=-step_size))
