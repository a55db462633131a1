"""What a run comes to in nanochat's terms: iterations, batch, micro-batch, ratio of data to parameters.

nanochat's own loader crops other documents than our packing does, but as many tokens; the packed rows of the arm are the
measure of its budget, so that full-subset iterations read every document about once and both engines train equally long.
"""

import math
from dataclasses import dataclass

from tasks.engines.nanochat.contract import REFERENCE_BATCH_TOKENS, REFERENCE_DEPTH, ModelConfig
from tasks.engines.nanochat.environment import TorchGpu
from tasks.errors import InputError
from tasks.spec import Training

BATCH_EXPONENT = 0.383
"""Of the optimal batch in the budget (Power Lines, arXiv 2505.13738), as nanochat has it."""
CPU_MICRO_TOKENS = 4_096
USABLE_MEMORY = 0.92
BYTES_PER_ACTIVATION = 24.3
"""Bytes per token, layer and channel that upstream keeps for the backward pass. Fitted to the peak of 71.9 GiB that was
measured at depth 20 with 65,536 tokens in flight."""
LOGIT_BYTES = 12


@dataclass(frozen=True)
class Plan:
    """The numbers of the command line."""

    config: ModelConfig
    batch_tokens: int
    iterations: int
    micro_rows: int
    ratio: float
    """Trained tokens over scaling parameters."""
    rows_left: int

    @property
    def tokens(self) -> int:
        """Trained tokens."""
        return self.iterations * self.batch_tokens


def plan_run(training: Training, rows: int, vocab_size: int, gpus: tuple[TorchGpu, ...]) -> Plan:
    """The plan of a training on `rows` packed rows; `gpus` is empty for a CPU.

    Raises InputError when the budget exceeds the rows or does not fill a batch, when batch, micro-batch and number of
    ranks do not divide each other, and when it is to be deterministic.
    """
    if training.deterministic:
        raise InputError(
            "deterministic is true, but nanochat's kernels add in any order: leave it out, or set builtin."
        )
    length = training.sequence_length
    config = ModelConfig.of_depth(training.depth, vocab_size, length, training.window_pattern)
    budget = rows * length if training.tokens is None else training.tokens
    if budget > rows * length:
        raise InputError(
            f"tokens is {budget:,}, but the arm packs into {rows:,} rows of {length:,}: lower it to {rows * length:,}, or "
            "take a larger arm."
        )
    batch = training.batch_tokens or _best_batch(config)
    if batch % (length * training.gpus):
        raise InputError(
            f"batch_tokens is {batch:,}, no multiple of sequence_length x gpus = {length:,} x {training.gpus}: round it."
        )
    iterations = budget // batch
    if iterations < 1:
        raise InputError(f"The budget of {budget:,} tokens does not fill one batch of {batch:,}: lower batch_tokens.")
    micro = _micro_rows(training, config, batch // length // training.gpus, gpus)
    ratio = iterations * batch / config.scaling_parameters()
    return Plan(config, batch, iterations, micro, ratio, rows - iterations * batch // length)


def _best_batch(config: ModelConfig) -> int:
    """Tokens of a batch by nanochat's rule, whole rows: 2^round(log2(2^19 (D / D12)^0.383)), D in proportion to parameters."""
    reference = ModelConfig.of_depth(REFERENCE_DEPTH, config.vocab_size, config.sequence_len, config.window_pattern)
    share = config.scaling_parameters() / reference.scaling_parameters()
    best = 2 ** round(math.log2(REFERENCE_BATCH_TOKENS * share**BATCH_EXPONENT))
    return max(best // config.sequence_len, 1) * config.sequence_len


def _micro_rows(training: Training, config: ModelConfig, rows: int, gpus: tuple[TorchGpu, ...]) -> int:
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
        return next((n for n in divisors if n * config.sequence_len <= CPU_MICRO_TOKENS), 1)
    memory = USABLE_MEMORY * min(gpu.memory for gpu in gpus)
    fitting = next((n for n in divisors if memory_bytes(config, n, training.gpus) <= memory), None)
    if fitting is None:
        raise InputError(
            f"depth {training.depth} needs about {memory_bytes(config, 1, training.gpus) / 2**30:.0f} GiB for one row of "
            f"{config.sequence_len:,} tokens, the GPU has {min(gpu.memory for gpu in gpus) / 2**30:.0f}: lower depth."
        )
    return fitting


def memory_bytes(config: ModelConfig, micro_rows: int, ranks: int) -> int:
    """Estimate of upstream's peak on one GPU: weights, gradients, its share of the optimizer, activations, logits."""
    sizes = {name: math.prod(shape) for name, shape in config.shapes().items()}
    embeddings = sum(n for name, n in sizes.items() if name.startswith(("transformer.wte", "value_embeds")))
    others = sum(sizes.values()) - embeddings
    state = embeddings * (4 + 4 / ranks) + others * (8 + 8 / ranks)
    tokens = micro_rows * config.sequence_len
    activations = tokens * config.n_layer * config.n_embd * BYTES_PER_ACTIVATION
    return round(state + activations + tokens * config.padded_vocab * LOGIT_BYTES)
