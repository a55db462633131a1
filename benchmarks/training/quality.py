"""Bits per byte of our bf16, our fp8 and nanochat's bf16 after equal tokens of one prepared arm, side by side on the GPUs there are.

Each training is `fabrating train`; upstream runs as the engine `nanochat`, so FABRATING_NANOCHAT_HOME must name its checkout.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import torch

from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.records.recall import recall
from tasks.spec import Training
from tasks.store.root import Root
from tasks.tokens.pack import pack_arm

RUNS = (("nanochat", "bf16"), ("builtin", "bf16"), ("builtin", "fp8"))
"""Engine and precision; the longest first."""
SEED = 1
"""Of the initial weights: what `fabrating train` takes when none is given."""

BARS = ((("builtin", "bf16"), ("nanochat", "bf16"), 0.002), (("builtin", "fp8"), ("builtin", "bf16"), 0.005))
"""One run, the other, and how far apart their bits per byte may be."""


def free_gpus() -> Queue[int]:
    """The numbers of all GPUs: `get` one to use it, `put` it back."""
    gpus: Queue[int] = Queue()
    for gpu in range(torch.cuda.device_count()):
        gpus.put(gpu)
    return gpus


def train(arguments: argparse.Namespace, engine: str, precision: str, gpu: int, seed: int = SEED) -> dict:
    """One training on one GPU: the manifest of its result. Exits with the log's end when it fails."""
    settings = {
        "engine": engine, "tokens": arguments.steps * arguments.batch_tokens, "batch_tokens": arguments.batch_tokens,
        "window_pattern": arguments.window_pattern, "eval_every": max(1, arguments.steps // 2),
        "save_every": arguments.steps, "device": "cuda", "wandb": "disabled",
    }  # fmt: skip
    command = [sys.executable, "-m", "infra.cli", "train", arguments.arm, "--root", arguments.root, "--json"]
    command += ["--depth", str(arguments.depth), "--precision", precision]
    command += ["--sequence-length", str(arguments.sequence_length), "--seed", str(seed)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    began = time.time()
    done = subprocess.run(
        command, env=os.environ | {"CUDA_VISIBLE_DEVICES": str(gpu)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{engine} {precision} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    print(f"  {engine} {precision}, seed {seed}, took {time.time() - began:.0f} s in all", flush=True)
    return json.loads(done.stdout)


def main(arguments: argparse.Namespace) -> None:
    """Pack if need be, train all three, print bits per byte and the differences; exit status 1 when one is over its bar."""
    root = Root(arguments.root)
    _, pool = recall(root, arguments.arm, Training(depth=arguments.depth), SEED)
    packed = pack_arm(root, arguments.arm, pool, arguments.sequence_length, "crop")
    count = torch.cuda.device_count()
    print(f"{count} x {torch.cuda.get_device_name()}, d{arguments.depth}, {arguments.steps} steps of "
          f"{arguments.batch_tokens:,} tokens, {packed.facts['rows']:,} packed rows", flush=True)  # fmt: skip
    gpus = free_gpus()

    def on_a_free_gpu(run: tuple[str, str]) -> dict:
        gpu = gpus.get()
        try:
            return train(arguments, *run, gpu)
        finally:
            gpus.put(gpu)

    with ThreadPoolExecutor(count) as pool_of_gpus:
        results = dict(zip(RUNS, pool_of_gpus.map(on_a_free_gpu, RUNS), strict=True))
    for (engine, precision), result in results.items():
        facts = result["facts"]
        lines = read_metrics(root.path(RunFolder.of(result["name"]).file(METRICS)))
        along = ", ".join(f"{line['bpb']:.5f} after {line['step']}" for line in lines if line["kind"] == "eval")
        speed = facts.get("tokens_per_second")
        print(f"  {engine:8} {precision}: {facts['bpb']:.5f} bits per byte after {facts['tokens']:,} tokens"
              f"{f', {speed:,.0f} tokens/s' if speed else ''} ({along})", flush=True)  # fmt: skip
    missed = []
    for one, other, bar in BARS:
        apart = results[one]["facts"]["bpb"] - results[other]["facts"]["bpb"]
        print(f"  {' '.join(one)} - {' '.join(other)} = {apart:+.5f} (at most {bar} from it)", flush=True)
        missed += [one] if abs(apart) > bar else []
    if missed:
        raise SystemExit(f"over the bar: {missed}")
