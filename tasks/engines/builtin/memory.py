"""Peak device memory of a training, estimated from shapes before anything is allocated."""

from tasks.records.scaling import ModelShape, parameter_counts

AUTOGRAD = (150, 16)
"""Bytes kept for the backward pass by the plain model in fp32: per token, layer and channel; and per token and vocabulary
entry (logits, their soft-capped copy and both gradients)."""
FUSED = (32, 2)
"""The same for the fused kernels in bf16, with a margin: d12 at 16 x 2,048 takes 11.6 GiB in all on an H100."""


def memory_bytes(config: ModelShape, precision: str, micro_batch: int, world_size: int, fused: bool = True) -> int:
    """Peak bytes on one device: weights, fp32 gradients, this rank's optimizer state, activations of `micro_batch` rows.

    `fused`: whether the GPU kernels are used, which keep less.
    """
    counts = parameter_counts(config)
    embedding = 4 if precision == "fp32" else 2
    products = counts.total - counts.embeddings
    weights = products * (4 if precision == "fp32" else 6) + counts.embeddings * embedding
    gradients = 4 * counts.total
    state = (4 * counts.matrices + 8 * (products - counts.matrices) + 2 * embedding * counts.embeddings) // world_size
    tokens = micro_batch * config.sequence_len
    per_channel, per_logit = FUSED if fused and precision != "fp32" else AUTOGRAD
    activations = config.n_embd * config.n_layer * per_channel + config.padded_vocab_size * per_logit
    return weights + gradients + state + tokens * activations
