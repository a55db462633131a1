"""What a run comes to in nanochat's terms: iterations, batch, micro-batch, ratio of data to parameters.

nanochat packs by itself, and its loader crops different documents than our packing does, but just as many tokens. So it trains
whole arms, and the arm's rows, cropped, measure the budget: a full pass reads every document about once, and both engines
train for the same number of tokens.
"""

from dataclasses import dataclass

from tasks.engines.nanochat.environment import TorchGpu
from tasks.errors import InputError
from tasks.records.scaling import (
    ModelShape,
    TrainingPlan,
    budget_tokens,
    check_batch,
    parameter_counts,
    plan_training,
)
from tasks.spec import Arm, Training

CPU_MICRO_TOKENS = 4_096
USABLE_MEMORY = 0.92
BYTES_PER_ACTIVATION = 24.3
"""Bytes per token, layer and channel that upstream keeps for the backward pass. Fitted to the peak of 71.9 GiB that was
measured at depth 20 with 65,536 tokens in flight."""
LOGIT_BYTES = 12


@dataclass(frozen=True)
class UpstreamPlan(TrainingPlan):
    """The numbers on upstream's command line."""

    shape: ModelShape
    micro_rows: int
    rows_left: int
    """Packed rows of a last, incomplete batch."""


def require_upstreams_ways(training: Training) -> None:
    """Raises InputError for a way of packing, a recipe or a choice of attention that upstream does not have."""
    if training.packing != "crop":
        raise InputError(
            f"packing is {training.packing}, but nanochat packs by itself and crops: set it to crop, or engine to builtin."
        )
    if training.recipe != "upstream":
        raise InputError(
            f"recipe is {training.recipe}, but nanochat trains by its own: set it to upstream, or engine to builtin."
        )
    if training.attention != "auto":
        raise InputError(
            f"attention is {training.attention}, but nanochat picks its own: set it to auto, or engine to builtin."
        )


def require_one_epoch(arm: Arm) -> None:
    """Raises InputError for an arm that is to be read several times: upstream's loader would count them otherwise."""
    if arm.epochs > 1:
        raise InputError(
            f"The arm {arm.name} has {arm.epochs} epochs, but nanochat reads an arm once: set epochs to 1, or engine to builtin."
        )


def plan_run(training: Training, rows: int, vocab_size: int, gpus: tuple[TorchGpu, ...]) -> UpstreamPlan:
    """The plan of a training on `rows` packed rows; `gpus` is empty for a CPU.

    Raises InputError when the training is meant to be deterministic, when packing or recipe are not upstream's or the budget is not the whole arm,
    and when batch, micro-batch and number of ranks do not divide each other.
    """
    if training.deterministic:
        raise InputError(
            "deterministic is true, but nanochat's kernels add in any order: set it to false, or engine to builtin."
        )
    require_upstreams_ways(training)
    shape = ModelShape.of(training, vocab_size)
    budget = budget_tokens(training, vocab_size)
    plan = plan_training(shape, budget, training.batch_tokens, rows)
    whole = plan_training(shape, None, training.batch_tokens, rows)
    if plan.iterations < whole.iterations:
        raise InputError(
            f"The budget is {budget:,} tokens of an arm that holds {rows * shape.sequence_len:,}, but nanochat trains whole "
            "arms: leave tokens and tokens_per_parameter empty, or set engine to builtin."
        )
    batch_rows = check_batch(plan.batch_tokens, shape.sequence_len, training.gpus)
    return UpstreamPlan(
        **vars(plan),
        shape=shape,
        micro_rows=_micro_rows(training, shape, batch_rows // training.gpus, gpus),
        rows_left=rows - plan.iterations * batch_rows,
    )


def _micro_rows(training: Training, shape: ModelShape, rows: int, gpus: tuple[TorchGpu, ...]) -> int:
    """Rows of one forward pass: as asked, or the most that divide the `rows` of a rank and fit."""
    if training.micro_batch is not None:
        if rows % training.micro_batch:
            raise InputError(
                f"micro_batch is {training.micro_batch}, which does not divide the {rows} rows of a batch on one of "
                f"{training.gpus} ranks: choose a divisor."
            )
        return training.micro_batch
    divisors = [count for count in range(rows, 0, -1) if rows % count == 0]
    if not gpus:
        return next((n for n in divisors if n * shape.sequence_len <= CPU_MICRO_TOKENS), 1)
    memory = USABLE_MEMORY * min(gpu.memory for gpu in gpus)
    fitting = next((n for n in divisors if memory_bytes(shape, n, training.gpus) <= memory), None)
    if fitting is None:
        raise InputError(
            f"depth {training.depth} needs about {memory_bytes(shape, 1, training.gpus) / 2**30:.0f} GiB for one row of "
            f"{shape.sequence_len:,} tokens, the GPU has {min(gpu.memory for gpu in gpus) / 2**30:.0f}: lower depth."
        )
    return fitting


def memory_bytes(shape: ModelShape, micro_rows: int, ranks: int) -> int:
    """Estimate of upstream's peak on one GPU: weights, gradients, its share of the optimizer, activations, logits."""
    counts = parameter_counts(shape)
    state = counts.embeddings * (4 + 4 / ranks) + (counts.total - counts.embeddings) * (8 + 8 / ranks)
    tokens = micro_rows * shape.sequence_len
    activations = tokens * shape.n_layer * shape.n_embd * BYTES_PER_ACTIVATION
    return round(state + activations + tokens * shape.padded_vocab_size * LOGIT_BYTES)
