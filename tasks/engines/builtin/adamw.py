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
    epsilon: float = EPSILON


def adamw_step(
    parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, constants: AdamW, lr_scale: float, step: int
) -> None:
    """Update `parameter` and its moments in place; `step` counts from 1, `gradient` is fp32."""
    lr = constants.lr * lr_scale
    keep = 1 - lr * constants.weight_decay
    step_size = lr / (1 - constants.beta1**step)
    correction = 1 / (1 - constants.beta2**step)
    if parameter.is_cuda:
        from tasks.engines.builtin.kernels.update import adamw

        beta1, beta2 = constants.beta1, constants.beta2
        adamw(parameter, gradient, first, second, beta1, beta2, keep, step_size, correction, constants.epsilon)
        return
    mean = first.float().lerp_(gradient, 1 - constants.beta1)
    square = second.float().lerp_(gradient.square(), 1 - constants.beta2)
    first.copy_(mean)
    second.copy_(square)
    denominator = (square * correction).sqrt_().add_(constants.epsilon)
    parameter.copy_((parameter.float() * keep).addcdiv_(mean, denominator, value=-step_size))
