"""Rates over the steps of a training: warmup and warmdown of learning rates, momentum and weight decay. Pure functions."""

import math
from typing import NamedTuple

from tasks.records.scaling import WARMUP_STEPS, TrainingPlan

WARMDOWN = 0.65
FINAL_LR = 0.05
MOMENTUM_STEPS = 400
MOMENTUM_START, MOMENTUM_PEAK, MOMENTUM_END = 0.85, 0.97, 0.90


class Rates(NamedTuple):
    """What one optimizer step needs to know of the schedule."""

    lr_scale: float
    momentum: float
    weight_decay: float


def schedule(step: int, plan: TrainingPlan) -> Rates:
    """The rates of a step, 0 <= step < plan.iterations.

    LR: linear warmup, constant, linear fall to 5 %. Momentum: up over 400 steps, down during the fall. Weight decay: cosine to 0.
    """
    falling = round(WARMDOWN * plan.iterations)
    start = plan.iterations - falling
    if step < WARMUP_STEPS:
        lr_scale = (step + 1) / WARMUP_STEPS
    elif step <= start:
        lr_scale = 1.0
    else:
        left = (plan.iterations - step) / falling
        lr_scale = left + (1 - left) * FINAL_LR
    if step < MOMENTUM_STEPS:
        risen = step / MOMENTUM_STEPS
        momentum = (1 - risen) * MOMENTUM_START + risen * MOMENTUM_PEAK
    elif step >= start:
        fallen = (step - start) / falling
        momentum = (1 - fallen) * MOMENTUM_PEAK + fallen * MOMENTUM_END
    else:
        momentum = MOMENTUM_PEAK
    weight_decay = plan.weight_decay * 0.5 * (1 + math.cos(math.pi * step / plan.iterations))
    return Rates(lr_scale, momentum, weight_decay)
