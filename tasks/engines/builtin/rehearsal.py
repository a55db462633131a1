"""A training step and an evaluation of a model on the meta device, where tensors have shapes and addresses but no contents.

Every kernel is called as in a run, for the helpers of `ahead.py` to compile.
"""

import torch

from tasks.engines.builtin.fused import Fused
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.records.scaling import ModelShape, plan_training

ROWS = 8
"""Of the micro-batch: kernels do not depend on their number."""


def rehearse(config: ModelShape, precision: str) -> None:
    """Take them, for a precision of the kernels (bf16 or fp8)."""
    with torch.device("meta"):
        model = GPT(config, torch.bfloat16)
        tokens = torch.zeros(ROWS, config.sequence_len, dtype=torch.int64)
    compute = Fused(model, precision)
    compute.backward(tokens, tokens, 1.0)
    build_optimizer(model, plan_training(config, tokens=2**30, batch_tokens=2**17)).step(1.0, 0.95, 0.0)
    compute.losses(tokens, tokens)
