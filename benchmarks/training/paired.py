"""Bits per byte of ours and of nanochat's code after equal tokens, from equal initial weights on equal rows, in bf16.

`quality` compares two trainers as people use them, each with weights and rows of its own, and other initial weights alone can
change more than its bar. Here nanochat's model and optimizer begin with our weights and read our rows by our schedule.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.training import quality
from tasks.spec import Training
from tasks.store.artifact import Artifact
from tasks.store.recall import recall
from tasks.store.root import Root
from tasks.trainer.compute import build_compute, embedding_dtype
from tasks.trainer.distributed import World
from tasks.trainer.evaluation import Holdout, evaluate, summarize
from tasks.trainer.model import GPT, config_for
from tasks.trainer.schedule import plan_training, schedule
from tasks.trainer.score import GPU_BATCH_TOKENS

UPSTREAM = Path(__file__).with_name("upstream.py")
BAR = 0.002
SEED = 1
"""Of the initial weights: what `fabrating train` takes when none is given."""


def train_upstream(arguments: argparse.Namespace, packed: Artifact) -> GPT:
    """A model with the weights that nanochat's code arrives at."""
    config = config_for(
        arguments.depth, arguments.sequence_length, arguments.window_pattern, packed.facts["vocab_size"]
    )
    plan = plan_training(config, arguments.steps * arguments.batch_tokens, arguments.batch_tokens)
    model = GPT(config)
    model.init_weights(SEED)
    task = {
        "config": dataclasses.asdict(config), "plan": dataclasses.asdict(plan), "state": model.state_dict(), "device": "cuda",
        "rates": [tuple(schedule(step, plan)) for step in range(plan.iterations)], "rows": str(packed.path / "rows.bin"),
        "batch": arguments.batch_tokens // arguments.sequence_length, "micro": arguments.rows,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        given, out = f"{folder}/task.pt", f"{folder}/out.pt"
        torch.save(task, given)
        subprocess.run([sys.executable, str(UPSTREAM), "train", arguments.nanochat, given, out], check=True)
        trained = GPT(config, embedding_dtype("bf16"))
        trained.load_state_dict(torch.load(out))
    return trained


def main(arguments: argparse.Namespace) -> None:
    """Train both, one after the other, print bits per byte and their difference; exit status 1 when it is over the bar."""
    root = Root(arguments.root)
    _, pool = recall(root, arguments.arm, Training(depth=arguments.depth), SEED)
    packed = root.open(f"arms/{arguments.arm}/packed/{arguments.sequence_length}")
    ours = quality.train(arguments, "builtin", "bf16", 0)["facts"]["bpb"]
    model = train_upstream(arguments, packed)
    holdout, world = Holdout.of(root.open(f"pools/{pool}/evaluation")), World(0, 1, torch.device("cuda"))
    compute = build_compute(model.to(world.device), "bf16")
    nats = evaluate(compute.losses, holdout, arguments.sequence_length, GPU_BATCH_TOKENS, world)
    theirs = summarize(nats, holdout.documents)["bpb"]
    print(f"{torch.cuda.get_device_name()}, d{arguments.depth}, {arguments.steps} steps of {arguments.batch_tokens:,} tokens, equal "
          f"weights at first, equal rows:\n  ours {ours:.5f}, nanochat's code {theirs:.5f} bits per byte: "
          f"{ours - theirs:+.5f} (at most {BAR} from it)", flush=True)  # fmt: skip
    if abs(ours - theirs) > BAR:
        raise SystemExit("over the bar")
