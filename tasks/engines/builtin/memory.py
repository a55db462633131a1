"""Peak device memory of a training, from shapes before anything is allocated.

For the fused kernels every term is something that `fused.py` holds at the peak; benchmarks/training/README.md compares the sum with
what was measured.
"""

from tasks.engines.builtin import graphs
from tasks.engines.builtin.blas import WORKSPACE_BYTES
from tasks.records.scaling import ModelShape, parameter_counts

AUTOGRAD = (150, 16)
"""Bytes kept for the backward pass by the plain model in fp32: per token, layer and channel; and per token and vocabulary
entry (logits, their soft-capped copy and both gradients)."""
KEPT = {"bf16": 20, "fp8": 23}
"""Bytes kept by the fused kernels per token, layer and channel: in bf16 the input's norm, q, k, v, the attention's output, the norm
in the middle and 4 for the MLP, 2 bytes each; in fp8 what is mixed, q, k, v, the output and the middle in bf16, all else in fp8."""
LOSS = {"bf16": 10, "fp8": 9}
"""Bytes of a token and channel that are there beside those while the loss is computed: x, its first and its middle value, norm, gradient."""
EVALUATION = 28
"""Bytes per token and channel of an evaluation: 14 activations of one layer in bf16."""
LOGIT_ROWS = 16_384
"""Tokens whose logits exist at a time."""
LIBRARIES = WORKSPACE_BYTES + (32 << 20)
"""Workspaces of cuBLAS, ours and PyTorch's."""


def memory_bytes(config: ModelShape, precision: str, micro_batch: int, world_size: int, fused: bool = True) -> int:
    """Peak bytes on one device: weights, fp32 gradients, this rank's optimizer state, activations of `micro_batch` rows.

    `fused`: whether the GPU kernels are used, which keep less.
    """
    counts = parameter_counts(config)
    embedding = 4 if precision == "fp32" else 2
    products = counts.total - counts.embeddings
    gradients = 4 * counts.total
    state = (4 * counts.matrices + 8 * (products - counts.matrices) + 2 * embedding * counts.embeddings) // world_size
    tokens = micro_batch * config.sequence_len
    if not fused or precision == "fp32":
        weights = products * (4 if precision == "fp32" else 6) + counts.embeddings * embedding
        per_channel, per_logit = AUTOGRAD
        activations = config.n_embd * config.n_layer * per_channel + config.padded_vocab_size * per_logit
        return weights + gradients + state + tokens * activations
    square = config.n_embd**2 * config.n_layer
    weights = 6 * products + 2 * counts.embeddings + 2 * 4 * square  # masters, copies in bf16; the MLP's transposed
    if precision == "fp8":
        weights += 2 * (counts.matrices + counts.lm_head)
    norms = 12 * config.n_head + (8 if precision == "bf16" else 40)  # fp32; in fp8 with 16 channels for the gates
    kept = config.n_layer * (KEPT[precision] * config.n_embd + norms)
    logits = (2 if precision == "bf16" else 3) * config.padded_vocab_size * min(tokens, LOGIT_ROWS)
    pass_bytes = tokens * (kept + LOSS[precision] * config.n_embd) + logits
    return LIBRARIES + weights + gradients + state + max(pass_bytes, _update_bytes(config) // world_size)


def _update_bytes(config: ModelShape) -> int:
    """Of Muon's orthogonalization of the largest stack: five of it in bf16."""
    return 5 * 2 * 4 * config.n_embd**2 * config.n_layer


def graph_bytes(config: ModelShape, micro_batch: int) -> int:
    """What steps that are replayed by CUDA graphs take besides: memory of a graph is kept for it, so what the optimizer and an
    evaluation need, which else comes from that of the activations, is taken beside it. The optimizer is replayed up to a depth,
    whatever the micro-batch; 0 beyond."""
    tokens = micro_batch * config.sequence_len
    if config.n_layer > graphs.LAYERS:
        return 0
    if not graphs.small(config, tokens):
        return _update_bytes(config)
    logits = 2 * config.padded_vocab_size * min(tokens, LOGIT_ROWS)
    return _update_bytes(config) + EVALUATION * tokens * config.n_embd + 2 * logits
