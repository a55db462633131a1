"""Distance from fp32: our fused bf16 and fp8 paths and nanochat's bf16, from equal weights and rows."""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from tasks.engines.builtin.compute import build_compute, embedding_dtype
from tasks.engines.builtin.model import GPT
from tasks.records.scaling import ModelShape

UPSTREAM = Path(__file__).with_name("upstream.py")


def run_upstream(checkout: str, task: dict, dtype: str) -> dict:
    """`upstream.function` in its own process, in "float32" or "bfloat16"."""
    with tempfile.TemporaryDirectory() as folder:
        weights, out = f"{folder}/weights.pt", f"{folder}/out.pt"
        torch.save(task, weights)
        environment = os.environ | {"NANOCHAT_DTYPE": dtype, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, str(UPSTREAM), "function", checkout, weights, out], check=True, env=environment)
        return torch.load(out)


def perturbed(config: ModelShape, seed: int) -> dict[str, Tensor]:
    """Initial weights plus noise, so that no gradient is zero; embeddings hold bf16 values, which all precisions can."""
    model = GPT(config)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }
    return {
        name: tensor.bfloat16().float() if "wte" in name or "value_embeds" in name else tensor
        for name, tensor in state.items()
    }


def distance(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative distance of all tensors taken as one vector."""
    error = sum((got[name].double() - wanted[name].double()).square().sum() for name in wanted)
    return (error / sum(tensor.double().square().sum() for tensor in wanted.values())).sqrt().item()


def ours(config: ModelShape, state: dict[str, Tensor], row: Tensor, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and gradients on the GPU."""
    model = GPT(config, embedding_dtype(precision))
    model.load_state_dict(state)
    compute = build_compute(model.cuda(), precision)
    x, y = row[:, :-1].cuda(), row[:, 1:].cuda()
    compute.backward(x, y, 1.0)
    return compute.logits(x).cpu(), {name: compute.storage.grads[p].cpu() for name, p in model.named_parameters()}


def main(arguments: argparse.Namespace) -> None:
    """Print the distances of logits and gradients from fp32, and ours over nanochat's."""
    torch.backends.cuda.matmul.allow_tf32 = False
    config = ModelShape.of_depth(arguments.depth, 512, arguments.window_pattern, 4096)
    state = perturbed(config, 1)
    row = torch.randint(0, config.vocab_size, (4, 513), generator=torch.Generator().manual_seed(2))
    logits, gradients = ours(config, state, row, "fp32")
    found = {}
    for precision in ("bf16", "fp8"):
        got, got_gradients = ours(config, state, row, precision)
        found[f"ours {precision}"] = (distance({"": got}, {"": logits}), distance(got_gradients, gradients))
    if arguments.nanochat:
        embeddings = {name: t.bfloat16() if "wte" in name or "value_embeds" in name else t for name, t in state.items()}
        task = {"config": dataclasses.asdict(config), "device": "cuda", "state": embeddings, "rows": [row], "rates": []}
        theirs = run_upstream(arguments.nanochat, task, "bfloat16")
        found["nanochat bf16"] = (
            distance({"": theirs["logits"]}, {"": logits}),
            distance(theirs["gradients"], gradients),
        )
    print(
        f"{torch.cuda.get_device_name()}, d{arguments.depth}, T=512: relative distance from fp32 of logits, of gradients"
    )
    for name, (of_logits, of_gradients) in found.items():
        print(f"  {name:14} {of_logits:.5f}  {of_gradients:.5f}")
