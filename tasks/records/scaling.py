"""Scaling rules: from the depth of a model to its shape, its batch and its rates.

Depth is the only dial; everything else follows from it, the same way for both engines, the plan, the estimate and a comparison.

1. Shape. The width is 64 a layer, rounded up to whole attention heads of 128, so that depth and width grow together. The
   vocabulary is padded to a multiple of 64, for the tensor cores.
2. Parameters. Scaling laws count the weights that every token is multiplied with: the matrices of the blocks and lm_head.
   Embeddings are looked up, not multiplied; of all counts that nanochat tried, this one fits its runs best.
3. FLOPs. A weight costs 2 FLOPs a token in the forward pass and 4 in the backward pass; attention adds 12 FLOPs for each channel
   and visible position (PaLM, arXiv 2204.02311, appendix B).
4. Batch. The best batch grows with the tokens D of the training as D^0.383 (Power Lines, arXiv 2505.13738). Models of all depths
   are meant to train on the same number of tokens a parameter, so D is proportional to the scaling parameters S, and the batch
   depends on the depth alone: B = 2^19 (S / S_12)^0.383, rounded to a power of two and then down to whole rows. 2^19 tokens was
   found best at depth 12. A larger budget means more steps, never larger ones, so arms with different budgets stay comparable.
5. Iterations. As many whole batches as the budget holds. A budget may be a number of tokens, or of tokens for each scaling parameter.
6. Rates. The learning rates were tuned at 2^19 tokens. They follow sqrt(B / 2^19), the rule for Adam (arXiv 2205.10287), assumed to hold
   for Muon, too. Weight decay keeps its time scale, measured in epochs (arXiv 2405.13698): 0.28 sqrt(B / 2^19) S_12 / S.

The rules and constants are nanochat's (scripts/base_train.py).
"""

import math
from dataclasses import dataclass

from tasks.errors import InputError
from tasks.spec import Training

HEAD_DIM = 128
WIDTH_PER_LAYER = 64
VOCAB_MULTIPLE = 64
SMEAR_CHANNELS = 24
"""Channels that the gate of the smear reads."""
VE_GATE_CHANNELS = 12
"""Channels that the gate of a value embedding reads."""
REFERENCE_DEPTH = 12
REFERENCE_BATCH = 2**19
"""Tokens; the best batch at the reference depth, and the one for which the learning rates were tuned."""
BATCH_EXPONENT = 0.383
WARMUP_STEPS = 40
"""While which all learning rates rise, in either recipe."""
WEIGHT_DECAY = 0.28
"""Of the matrices, at the reference depth and batch."""
DEFAULT_RATIO = 12
"""Trained tokens for each scaling parameter: nanochat's default budget."""


@dataclass(frozen=True)
class ModelShape:
    """Shape of a model; the fields are those that nanochat keeps in a checkpoint's metadata."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str

    @classmethod
    def of_depth(
        cls, depth: int, sequence_length: int = 2048, window_pattern: str = "SSSL", vocab_size: int = 32_768
    ) -> "ModelShape":
        """Step 1. Raises InputError for a depth below 1."""
        if depth < 1:
            raise InputError(f"depth is {depth}: a model needs at least one layer.")
        heads = -(-depth * WIDTH_PER_LAYER // HEAD_DIM)
        return cls(sequence_length, vocab_size, depth, heads, heads, heads * HEAD_DIM, window_pattern)

    @classmethod
    def of(cls, training: Training, vocab_size: int) -> "ModelShape":
        """The model that `training` trains."""
        return cls.of_depth(training.depth, training.sequence_length, training.window_pattern, vocab_size)

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_width(self) -> int:
        """Channels of keys and of values."""
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and output matrices; logits beyond `vocab_size` are cut off."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def windows(self) -> list[int]:
        """For each layer, how many earlier positions a query sees: T for L, T/4 rounded up to a multiple of 128 for S.

        The last layer always sees T.
        """
        quarter = -(-self.sequence_len // 4)
        spans = {"L": self.sequence_len, "S": -(-quarter // 128) * 128}
        pattern = self.window_pattern.upper()
        windows = [spans[pattern[layer % len(pattern)]] for layer in range(self.n_layer)]
        windows[-1] = self.sequence_len
        return windows

    def has_value_embedding(self, layer: int) -> bool:
        """Every other layer mixes embeddings of the tokens into its values; the last one always does."""
        return layer % 2 == (self.n_layer - 1) % 2


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by kind."""

    wte: int
    value_embeds: int
    lm_head: int
    matrices: int
    """Everything inside the blocks."""
    smear_gate: int
    scalars: int

    @property
    def embeddings(self) -> int:
        return self.wte + self.value_embeds

    @property
    def scaling(self) -> int:
        """What scaling laws count."""
        return self.matrices + self.lm_head

    @property
    def total(self) -> int:
        return self.embeddings + self.scaling + self.smear_gate + self.scalars


def parameter_counts(shape: ModelShape) -> ParameterCounts:
    """Step 2. Depth 20 with 32,768 tokens has 896.5 M parameters, 435.2 M of them scaling parameters."""
    width, vocab, layers = shape.n_embd, shape.padded_vocab_size, shape.n_layer
    with_values = sum(map(shape.has_value_embedding, range(layers)))
    attention = 2 * width * (width + shape.kv_width)  # c_q and c_proj, c_k and c_v
    mlp = 2 * width * 4 * width
    return ParameterCounts(
        wte=vocab * width,
        value_embeds=with_values * vocab * shape.kv_width,
        lm_head=vocab * width,
        matrices=layers * (attention + mlp) + with_values * VE_GATE_CHANNELS * shape.n_kv_head,
        smear_gate=SMEAR_CHANNELS,
        scalars=2 * layers + 2,  # resid_lambdas and x0_lambdas; smear_lambda and backout_lambda
    )


def flops_per_token(shape: ModelShape) -> int:
    """Step 3. FLOPs of the forward and backward pass."""
    counts = parameter_counts(shape)
    attention = sum(12 * shape.n_embd * min(window, shape.sequence_len) for window in shape.windows)
    return 6 * (counts.scaling + counts.smear_gate) + attention


def budget_tokens(training: Training, vocab_size: int) -> int | None:
    """Step 5. The budget of a training in tokens; None for all that the arm holds."""
    if training.tokens_per_parameter is None:
        return training.tokens
    return tokens_at(training.tokens_per_parameter, ModelShape.of(training, vocab_size))


def tokens_at(ratio: float, shape: ModelShape) -> int:
    """Step 5. The tokens of a budget of `ratio` tokens for each scaling parameter."""
    return int(ratio * parameter_counts(shape).scaling)


def choose_batch(shape: ModelShape, given: int | None = None) -> int:
    """Step 4. Tokens of one optimizer step: as `given`, else by the rule; always whole rows.

    Raises InputError when the given batch does not consist of whole rows.
    """
    length = shape.sequence_len
    if given is None:
        best: int = 1 << round(math.log2(REFERENCE_BATCH * _size(shape) ** BATCH_EXPONENT))
        return max(best // length, 1) * length
    if given % length:
        below = given // length * length
        near = f"{below:,} or {below + length:,}" if below else f"{length:,}"
        raise InputError(
            f"batch_tokens {given:,} is not a multiple of the sequence length {length:,}: set it to {near}."
        )
    return given


def check_batch(batch_tokens: int, sequence_length: int, world_size: int) -> int:
    """Rows of a global batch, to be shared equally between processes. Raises InputError when they cannot be."""
    rows = batch_tokens // sequence_length
    if rows % world_size:
        below = rows // world_size * world_size
        remedy = (
            f"set batch_tokens to {below * sequence_length:,}, or gpus to a divisor of {rows}"
            if below
            else f"set batch_tokens to {world_size * sequence_length:,} or more, or gpus to {rows} or fewer"
        )
        raise InputError(
            f"batch_tokens {batch_tokens:,} are {rows} rows of {sequence_length:,}, which {world_size} processes cannot "
            f"share equally: {remedy}."
        )
    return rows


@dataclass(frozen=True)
class TrainingPlan:
    """What a budget comes to."""

    batch_tokens: int
    iterations: int
    ratio: float
    """Trained tokens for each scaling parameter."""
    lr_scale: float
    """Factor of all learning rates, for the size of the batch."""
    weight_decay: float
    """Of the matrices, at the first step."""

    @property
    def tokens(self) -> int:
        """Trained tokens: whole batches, at most the budget."""
        return self.iterations * self.batch_tokens


def plan_training(
    shape: ModelShape,
    tokens: int | None = None,
    batch_tokens: int | None = None,
    rows: int | None = None,
    epochs: int = 1,
) -> TrainingPlan:
    """Steps 4 to 6, for a budget of `tokens` (default: each of the arm's packed `rows`, `epochs` times).

    Raises InputError when the budget exceeds the rows or does not fill one batch, or when `batch_tokens` is not whole rows.
    """
    held = None if rows is None else rows * epochs * shape.sequence_len
    budget = held if tokens is None else tokens
    if budget is None:
        raise InputError("There is no budget: give a number of tokens or of packed rows.")
    if held is not None and budget > held:
        raise InputError(
            f"A budget of {budget:,} tokens needs {-(-budget // shape.sequence_len):,} packed rows but the arm has {rows:,}"
            f"{f', read {epochs} times' if epochs > 1 else ''}: lower tokens to {held:,}, take a larger arm, or raise its epochs."
        )
    batch = choose_batch(shape, batch_tokens)
    iterations = budget // batch
    if iterations < 1:
        raise InputError(
            f"A budget of {budget:,} tokens does not fill one batch of {batch:,}: lower batch_tokens or take more text."
        )
    lr_scale = math.sqrt(batch / REFERENCE_BATCH)
    return TrainingPlan(
        batch_tokens=batch,
        iterations=iterations,
        ratio=iterations * batch / parameter_counts(shape).scaling,
        lr_scale=lr_scale,
        weight_decay=WEIGHT_DECAY * lr_scale / _size(shape),
    )


def _size(shape: ModelShape) -> float:
    """S / S_12: scaling parameters over those of the reference depth."""
    reference = ModelShape.of_depth(REFERENCE_DEPTH, shape.sequence_len, shape.window_pattern, shape.vocab_size)
    return parameter_counts(shape).scaling / parameter_counts(reference).scaling
