"""Bits per byte of ours and of nanochat's code, or of ours in fp8 and in bf16, after equal tokens, from equal initial weights on equal rows.

Other initial weights alone can change more than the bar, so nanochat's model and optimizer begin with our weights and read our
rows by our schedule, once for each of several seeds, as many at a time as there are GPUs; what counts is the mean of the differences.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import torch

from tasks.engines.builtin.compute import build_compute, embedding_dtype
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import EncodedHoldout, evaluate
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import SCALAR_EPSILON, SCALARS
from tasks.engines.builtin.schedule import schedule
from tasks.engines.builtin.score import GPU_BATCH_TOKENS
from tasks.engines.turns import VISIBLE, visible_gpus
from tasks.records.layout import PoolFolder
from tasks.records.recall import recall
from tasks.records.scaling import ModelShape, plan_training
from tasks.records.scores import scores_table, summarize
from tasks.spec import Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.tokens.pack import pack_arm

UPSTREAM = Path(__file__).with_name("upstream.py")
SEED = 1
"""Of the initial weights: what `fabrating train` takes when none is given."""
BARS = {"nanochat's code": 0.002, "ours in bf16": 0.005}
"""The most that the mean may be off what ours is compared with."""


def train_ours(arguments: argparse.Namespace, precision: str, seed: int, gpu: str) -> float:
    """Bits per byte after `fabrating train` on one GPU. Exits with the log's end when it fails."""
    settings = {
        "engine": "builtin", "tokens": arguments.steps * arguments.batch_tokens, "batch_tokens": arguments.batch_tokens,
        "recipe": arguments.recipe, "window_pattern": arguments.window_pattern, "eval_every": max(1, arguments.steps // 2),
        "save_every": arguments.steps, "device": "cuda", "wandb": "disabled",
    }  # fmt: skip
    command = [sys.executable, "-m", "infra.cli", "train", arguments.arm, "--root", arguments.root, "--json"]
    command += ["--depth", str(arguments.depth), "--precision", precision]
    command += ["--sequence-length", str(arguments.sequence_length), "--seed", str(seed)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    began = time.time()
    done = subprocess.run(command, env=os.environ | {VISIBLE: gpu}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ours ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    print(f"  ours, {precision}, seed {seed}, took {time.time() - began:.0f} s in all", flush=True)
    return float(json.loads(done.stdout)["facts"]["bpb"])


def train_upstream(
    arguments: argparse.Namespace, packed: Artifact, config: ModelShape, seed: int, gpu: str
) -> dict[str, torch.Tensor]:
    """The weights that nanochat's code arrives at."""
    began = time.time()
    plan = plan_training(config, arguments.steps * arguments.batch_tokens, arguments.batch_tokens)
    model = GPT(config)
    model.init_weights(seed)
    task = {
        "config": dataclasses.asdict(config), "plan": dataclasses.asdict(plan), "state": model.state_dict(), "device": "cuda",
        "rates": [tuple(schedule(step, plan)) for step in range(plan.iterations)], "rows": str(packed.path / "rows.bin"),
        "batch": arguments.batch_tokens // arguments.sequence_length, "micro": arguments.rows,
        "epsilons": dict.fromkeys(SCALARS, SCALAR_EPSILON[arguments.recipe]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        given, out = f"{folder}/task.pt", f"{folder}/out.pt"
        torch.save(task, given)
        command = [sys.executable, str(UPSTREAM), "train", arguments.nanochat, given, out]
        subprocess.run(command, env=os.environ | {VISIBLE: gpu}, check=True)
        print(f"  nanochat's code, seed {seed}, took {time.time() - began:.0f} s in all", flush=True)
        return torch.load(out)


def score_upstream(root: Root, pool: str, config: ModelShape, weights: dict[str, torch.Tensor]) -> float:
    """Bits per byte of weights that nanochat's code arrived at, by our evaluation in bf16."""
    holdout, world = EncodedHoldout.of(root.open(PoolFolder(pool).evaluation)), World(0, 1, torch.device("cuda"))
    model = GPT(config, embedding_dtype("bf16"))
    model.load_state_dict(weights)
    compute = build_compute(model.to(world.device), "bf16")
    nats = evaluate(compute.losses, holdout, config.sequence_len, GPU_BATCH_TOKENS, world)
    return float(summarize(scores_table(nats, holdout.documents))["bpb"])


def main(arguments: argparse.Namespace) -> None:
    """Train both for each seed, print bits per byte and their differences; exit status 1 when the mean is over the bar.

    Both are ours and nanochat's code, or without a checkout of it ours in two precisions. By the quiet recipe nanochat's optimizer has its
    epsilon, too: pairs by upstream's recipe can scatter as far as seeds do (0.01 to 0.03 at d12 after 30 M tokens).
    """
    root = Root(arguments.root)
    _, pool = recall(root, arguments.arm, Training(depth=arguments.depth), SEED)
    packed = pack_arm(root, arguments.arm, pool, arguments.sequence_length, "crop")
    config = ModelShape.of_depth(
        arguments.depth, arguments.sequence_length, arguments.window_pattern, packed.facts["vocab_size"]
    )
    gpus: Queue[str] = Queue()
    for gpu in visible_gpus():
        gpus.put(gpu)
    seeds = range(SEED, SEED + arguments.seeds)

    def both(seed: int) -> tuple[float, float | dict[str, torch.Tensor]]:
        gpu = gpus.get()
        try:
            ours = train_ours(arguments, arguments.precision, seed, gpu)
            if arguments.nanochat:
                return ours, train_upstream(arguments, packed, config, seed, gpu)
            return ours, train_ours(arguments, "bf16", seed, gpu)
        finally:
            gpus.put(gpu)

    with ThreadPoolExecutor(gpus.qsize()) as pool_of_gpus:
        trained = list(pool_of_gpus.map(both, seeds))
    other = "nanochat's code" if arguments.nanochat else "ours in bf16"
    print(f"{torch.cuda.get_device_name()}, d{arguments.depth}, {arguments.steps} steps of {arguments.batch_tokens:,} tokens, "
          f"equal weights at first, equal rows, bits per byte:", flush=True)  # fmt: skip
    differences = []
    for seed, (ours, made) in zip(seeds, trained, strict=True):
        theirs = made if isinstance(made, float) else score_upstream(root, pool, config, made)
        differences.append(ours - theirs)
        print(f"  seed {seed}: ours in {arguments.precision} {ours:.5f}, {other} {theirs:.5f}: {ours - theirs:+.5f}", flush=True)  # fmt: skip
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    print(f"  mean {mean:+.5f}, standard error {error:.5f} (at most {BARS[other]} from it)", flush=True)
    if abs(mean) > BARS[other]:
        raise SystemExit("over the bar")
