"""How much device memory a training will need at its peak, estimated from shapes before anything is allocated."""

from tasks.trainer.model import GPTConfig
from tasks.trainer.schedule import parameter_counts

CHANNEL_BYTES = {"fp32": 150, "bf16": 76, "fp8": 76}
"""Kept for the backward pass, per token, layer and channel, by autograd over the plain model."""
LOGIT_BYTES = 16
"""Per token and vocabulary entry: logits, their soft-capped copy and both gradients, in fp32."""


def memory_bytes(config: GPTConfig, precision: str, micro_batch: int, world_size: int) -> int:
    """Peak bytes on one device: weights, fp32 gradients, this rank's optimizer state, activations of `micro_batch` rows."""
    counts = parameter_counts(config)
    embedding = 4 if precision == "fp32" else 2
    embeddings = counts["wte"] + counts["value_embeds"]
    products = counts["total"] - embeddings
    weights = products * (4 if precision == "fp32" else 6) + embeddings * embedding
    gradients = 4 * counts["total"]
    state = (4 * counts["matrices"] + 8 * (products - counts["matrices"]) + 2 * embedding * embeddings) // world_size
    tokens = micro_batch * config.sequence_len
    activations = tokens * config.n_embd * config.n_layer * CHANNEL_BYTES[precision]
    return weights + gradients + state + activations + tokens * config.padded_vocab_size * LOGIT_BYTES
