"""python -m benchmarks.training speed|ranks|parity|paired|resume|turns ...

speed: steps of ours and of nanochat, each in a fresh process with cold compilation caches, one after the other on the same GPU.
ranks: steps of ours on one GPU and on several, of the same batch.
parity: how far bf16 (and fp8) gradients of ours and of nanochat are from ours in fp32, from equal weights and rows.
paired: bits per byte of ours and of nanochat's code (without a checkout of it: of ours in fp8 and in bf16) after equal tokens, from equal
    initial weights on equal rows.
resume: are the bits of a killed and resumed training those of an undisturbed one?
turns: what CUDA graphs are worth, with and without them in turn in one process.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.training import paired, parity, resume, turns
from benchmarks.training.tokens import rows_of_tokens
from tasks.records.devices import peak_flops
from tasks.records.scaling import ModelShape, plan_training

UPSTREAM = Path(__file__).with_name("upstream.py")


def measure(command: list[str], task: dict) -> dict:
    """Run a child with fresh caches; its last line is the result."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
            "TRITON_CACHE_DIR": f"{cache}/triton",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        }
        done = subprocess.run(
            [*command, json.dumps(task | {"started": time.time()})], stdout=subprocess.PIPE, env=environment, text=True
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_task(arguments: argparse.Namespace) -> dict:
    """What the children are told; "tokens" is added to it."""
    config = ModelShape.of_depth(arguments.depth, arguments.sequence_length, arguments.window_pattern)
    plan = plan_training(config, tokens=3000 * arguments.batch_tokens, batch_tokens=arguments.batch_tokens)
    return {
        "config": dataclasses.asdict(config), "plan": dataclasses.asdict(plan), "precision": arguments.precision,
        "steps": arguments.steps, "accumulation": arguments.batch_tokens // (arguments.rows * arguments.sequence_length),
        "rates": (1.0, 0.95, plan.weight_decay),
    }  # fmt: skip


@contextlib.contextmanager
def tokens_of(arguments: argparse.Namespace) -> Iterator[str]:
    """The rows of one micro-batch in a file, as long as it is needed."""
    config = ModelShape.of_depth(arguments.depth)
    with tempfile.NamedTemporaryFile(suffix=".pt") as tokens:
        torch.save(rows_of_tokens(arguments.rows, arguments.sequence_length, config.vocab_size), tokens.name)
        yield tokens.name


def ranks(arguments: argparse.Namespace) -> None:
    """Print tokens/s on one GPU and on `gpus`, one process each, and their ratio."""
    rates = {}
    with tokens_of(arguments) as tokens:
        task = make_task(arguments) | {"tokens": tokens}
        for count in (1, arguments.gpus):
            launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "-m"] if count > 1 else []
            found = measure([sys.executable, "-m", *launcher, "benchmarks.training.ours"], task)
            rates[count] = arguments.batch_tokens / statistics.median(found["step_seconds"])
            print(f"{count} x {torch.cuda.get_device_name()}, d{arguments.depth}, {arguments.precision}, batch "
                  f"{arguments.batch_tokens:,}: {rates[count]:,.0f} tokens/s, peak {found['peak_bytes'] / 2**30:.1f} GiB on the first, "
                  f"losses {found['losses'][0]:.4f} .. {found['losses'][-1]:.4f}", flush=True)  # fmt: skip
    print(f"ratio {rates[arguments.gpus] / rates[1]:.3f}")


def speed(arguments: argparse.Namespace) -> None:
    """Print tokens/s, MFU, start and memory of both, their ratios, and where our time goes."""
    task = make_task(arguments)
    name, device = torch.cuda.get_device_name(), torch.__version__
    print(f"{name}, torch {device}, d{arguments.depth}, {arguments.precision}, T={arguments.sequence_length}, "
          f"pattern {arguments.window_pattern}, batch {arguments.batch_tokens:,} = {task['accumulation']} x {arguments.rows} rows")  # fmt: skip
    with tokens_of(arguments) as tokens:
        task |= {"tokens": tokens, "breakdown": True}
        ours = measure([sys.executable, "-m", "benchmarks.training.ours"], task)
        theirs = None
        if arguments.nanochat:
            theirs = measure([sys.executable, str(UPSTREAM), "speed", arguments.nanochat], task)
    print(ours["description"])
    peak = peak_flops(name)
    rates = {}
    for label, result in (("ours", ours), ("nanochat", theirs)):
        if result is None:
            continue
        rate = rates[label] = arguments.batch_tokens / statistics.median(result["step_seconds"])
        share = f", {rate * result['flops_per_token'] / peak:.1%} of the bf16 peak" if peak else ""
        print(f"{label:9} {rate:9,.0f} tokens/s{share}, first step after {result['first_step_seconds']:.1f} s, "
              f"peak {result['peak_bytes'] / 2**30:.1f} GiB, losses {result['losses'][0]:.4f} .. {result['losses'][-1]:.4f}")  # fmt: skip
    if theirs:
        print(f"ratios    {rates['ours'] / rates['nanochat']:.3f} x tokens/s, "
              f"{ours['first_step_seconds'] / theirs['first_step_seconds']:.3f} x time to the first step, "
              f"{ours['peak_bytes'] / theirs['peak_bytes']:.3f} x memory")  # fmt: skip
    total = statistics.median(ours["step_seconds"]) * 1e3
    floor = sum(ours["breakdown"].get(kind, 0.0) for kind in ("products", "attention"))
    for kind, milliseconds in ours["breakdown"].items():
        print(f"  {milliseconds:8.1f} ms {milliseconds / total:6.1%}  {kind}")
    print(f"  {total:8.1f} ms         a step; products and attention alone {floor:.1f} ms = "
          f"{arguments.batch_tokens / floor * 1e3:,.0f} tokens/s")  # fmt: skip


COMMANDS = {
    "speed": speed,
    "ranks": ranks,
    "parity": parity.main,
    "paired": paired.main,
    "resume": resume.main,
    "turns": turns.main,
}
DEFAULTS = {
    "paired": {"depth": 12, "steps": 500, "batch_tokens": 131_072},
    "resume": {"depth": 12, "steps": 60, "batch_tokens": 131_072},
    "turns": {"depth": 6, "steps": 10, "batch_tokens": 131_072, "rows": 64},
}
"""Where a command's own numbers are others than the parser's."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("--nanochat", help="a checkout of nanochat (speed, parity, paired)")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--window-pattern", default="L")
    parser.add_argument("--batch-tokens", type=int, default=524_288)
    parser.add_argument(
        "--rows", type=int, default=32, help="rows of a micro-batch (speed, ranks; of nanochat in paired)"
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", choices=("bf16", "fp8"), default="bf16")
    parser.add_argument("--recipe", choices=("quiet", "upstream"), default="quiet", help="of both (paired)")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs to compare with one (ranks)")
    parser.add_argument("--root", help="where the arm lies (paired)")
    parser.add_argument("--arm", help="a prepared arm (paired)")
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(1, 33),
        metavar="N",
        default=1,
        help="initial weights to compare from (paired)",
    )
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints (resume)")
    parser.add_argument("--deterministic", action="store_true", help="the same bits every time (turns)")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=tuple(turns.WAYS),
        default=["kernel by kernel", "graphs"],
        help="what to compare (turns)",
    )
    parser.add_argument("--kills", type=int, default=2, help="how often to kill (resume)")
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    parser.set_defaults(**DEFAULTS.get(command, {}))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    if arguments.command == "paired" and not (arguments.root and arguments.arm):
        raise SystemExit("paired needs --root and --arm, an arm that `fabrating prepare` made")
    if arguments.command == "paired" and not arguments.nanochat and arguments.precision == "bf16":
        raise SystemExit(
            "paired compares bf16 with nanochat's code: name a checkout (--nanochat), or take --precision fp8"
        )
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
