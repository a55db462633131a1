"""How long, in which batches and with which rates a model is trained: scaling rules, schedules and the counts behind them.

All are pure functions. Scaling with the batch after Power Lines (arXiv 2505.13738); scaling of the weight decay keeps the decay
per epoch constant (arXiv 2405.13698); the FLOP count is PaLM's (arXiv 2204.02311).
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from tasks.engines.builtin.model import GPT, GPTConfig, config_for
from tasks.errors import InputError

REFERENCE_BATCH = 2**19
"""Tokens of a batch for which the learning rates were tuned, at depth 12."""
REFERENCE_DEPTH = 12
BATCH_EXPONENT = 0.383
WEIGHT_DECAY = 0.28
WARMUP_STEPS = 40
WARMDOWN = 0.65
FINAL_LR = 0.05
MOMENTUM_STEPS = 400
MOMENTUM_START, MOMENTUM_PEAK, MOMENTUM_END = 0.85, 0.97, 0.90

PEAK_FLOPS = {"H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "B200": 2.25e15}
"""Dense bf16 FLOP/s from the data sheets, by a part of the device's name; the longer name first."""


@functools.cache
def parameter_counts(config: GPTConfig) -> dict[str, int]:
    """Parameters by kind; `scaling` (matrices and lm_head) is what budgets are measured against."""
    with torch.device("meta"):
        model = GPT(config)
    counts = {
        "wte": model.transformer["wte"].weight.numel(),
        "value_embeds": sum(p.numel() for p in model.value_embeds.parameters()),
        "lm_head": model.lm_head.weight.numel(),
        "matrices": sum(p.numel() for p in model.transformer["h"].parameters()),
    }
    total = sum(p.numel() for p in model.parameters())
    return counts | {
        "scalars": total - sum(counts.values()),
        "total": total,
        "scaling": counts["matrices"] + counts["lm_head"],
    }


def flops_per_token(config: GPTConfig) -> int:
    """Forward and backward: 6 per weight of a product, and 12 x width x positions seen per layer for attention."""
    counts = parameter_counts(config)
    weights = counts["matrices"] + counts["lm_head"] + 24  # the smear gate is a product with 24 weights
    return 6 * weights + sum(12 * config.n_embd * min(window, config.sequence_len) for window in config.windows)


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by its name; None for one that is not in the table."""
    for part, peak in PEAK_FLOPS.items():
        if part in device_name:
            return peak
    return None


@dataclass(frozen=True)
class Plan:
    """What a budget comes to."""

    batch_tokens: int
    iterations: int
    tokens: int
    """Trained tokens: batch_tokens x iterations, at most the budget."""
    ratio: float
    """Budget over scaling parameters."""
    lr_scale: float
    """Of all learning rates, for the batch size."""
    weight_decay: float
    """Of the matrices, at the first step."""
    scaling_parameters: int


class Rates(NamedTuple):
    """What one optimizer step needs to know of the schedule."""

    lr_scale: float
    momentum: float
    weight_decay: float


def plan_training(
    config: GPTConfig, tokens: int | None = None, batch_tokens: int | None = None, rows: int | None = None
) -> Plan:
    """Batch size, iterations and rates of a budget of `tokens` (default: each of `rows` packed rows once).

    Raises InputError when the budget exceeds the rows, or does not fill one batch.
    """
    if tokens is None and rows is None:
        raise InputError("no budget: give a number of tokens or of packed rows")
    held = None if rows is None else rows * config.sequence_len
    budget = held if tokens is None else tokens
    if held is not None and budget > held:
        raise InputError(
            f"a budget of {budget:,} tokens needs {-(-budget // config.sequence_len):,} packed rows but the arm has {rows:,}; "
            f"lower tokens to {held:,} or take a larger arm"
        )
    if batch_tokens is not None and batch_tokens % config.sequence_len:
        raise InputError(
            f"batch_tokens {batch_tokens:,} is not a multiple of the sequence length {config.sequence_len:,}"
        )
    scaling = parameter_counts(config)["scaling"]
    ratio = budget / scaling
    reference = config_for(REFERENCE_DEPTH, config.sequence_len, config.window_pattern, config.vocab_size)
    reference_tokens = ratio * parameter_counts(reference)["scaling"]
    if batch_tokens is None:
        best = REFERENCE_BATCH * (budget / reference_tokens) ** BATCH_EXPONENT
        rows_of_batch = max(2 ** round(math.log2(best)) // config.sequence_len, 1)
        batch_tokens = rows_of_batch * config.sequence_len
    iterations = budget // batch_tokens
    if iterations < 1:
        raise InputError(
            f"a budget of {budget:,} tokens does not fill one batch of {batch_tokens:,}; lower batch_tokens or take more text"
        )
    return Plan(
        batch_tokens=batch_tokens,
        iterations=iterations,
        tokens=iterations * batch_tokens,
        ratio=ratio,
        lr_scale=math.sqrt(batch_tokens / REFERENCE_BATCH),
        weight_decay=WEIGHT_DECAY * math.sqrt(batch_tokens / REFERENCE_BATCH) * reference_tokens / budget,
        scaling_parameters=scaling,
    )


def schedule(step: int, plan: Plan) -> Rates:
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
