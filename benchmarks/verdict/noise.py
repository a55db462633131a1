"""How much do replicates of a small run differ, and why? `python -m benchmarks.verdict noise pack|train|gradients ...`

pack: encodes the texts of parquet files and holds out a tenth of the documents.
train: trains from several seeds under each of several recipes, all in one process. Prints the mean and standard deviation (sd) of the
    training loss and of the holdout's bits per byte, and how far two recipes agree seed by seed.
gradients: follows one training in fp32 and prints how far the scalars' gradients are off in bf16.

A recipe is "upstream", or its changes joined by "+":
    factor=0.1      the rates of all scalars (`SCALARS`) times 0.1; 0 freezes them
    NAME=0.1        the same for one of them, such as backout_lambda=0.1
    scaled          rates of smear and backout scaled with the batch
    epsilon=1e-1    Adam's epsilon for the scalars
    warmup=100      rates of the scalars rise over 100 steps
    exact           residual stream and its gradient in fp32, so that the scalars' gradients are exact
    masters         embeddings and their moments in fp32
    fp32, autograd  everything in fp32; PyTorch's autograd instead of the fused kernels

noise.md has the results. All commands but `pack` need only PyTorch and NumPy.
"""

import argparse
import gc
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.verdict.packed import Text, pack
from tasks.engines.builtin.compute import Compute, build_compute, embedding_dtype
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import SCALARS, UPSTREAM, Optimizer, Scalars, build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training

LAST_STEPS = 25
"""The training loss is the mean of so many last steps."""
AVERAGES = (0.1, 0.3)
"""Shares of the steps, at the end, whose weights are averaged, beside the last weights alone."""
MICRO_BATCH_TOKENS = 131_072


@dataclass(frozen=True)
class Recipe:
    """What one row of the table is trained with."""

    name: str
    scalars: Scalars = UPSTREAM
    precision: str = "bf16"
    exact: bool = False
    masters: bool = False
    kernels: bool = True

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """A recipe by its name. Raises ValueError for a part that there is not."""
        recipe, scalars = cls(name), {}
        for part in name.split("+"):
            key, _, value = part.partition("=")
            if key == "fp32":
                recipe = replace(recipe, precision="fp32")
            elif key in ("exact", "masters"):
                recipe = replace(recipe, **{key: True})
            elif key == "autograd":
                recipe = replace(recipe, kernels=False)
            elif key == "scaled":
                scalars["scaled"] = True
            elif key in ("factor", "epsilon"):
                scalars[key] = float(value)
            elif key == "warmup":
                scalars[key] = int(value)
            elif key in SCALARS:
                scalars.setdefault("factors", {})[key] = float(value)
            elif key != "upstream":
                raise ValueError(f"there is no recipe {part}")
        return replace(recipe, scalars=Scalars(**scalars))


def learner(
    arguments: argparse.Namespace, config: ModelShape, recipe: Recipe, seed: int
) -> tuple[GPT, Compute, Optimizer]:
    """Model, computation and optimizer of one run. `seed` draws the initial weights."""
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    model = GPT(config, embedding_dtype(recipe.precision))
    model.init_weights(seed)
    model.to(arguments.device)
    compute = build_compute(model, recipe.precision, recipe.kernels, exact=recipe.exact)
    return model, compute, build_optimizer(model, plan, recipe.scalars, recipe.masters)


def accumulate(compute: Compute, inputs: Tensor, targets: Tensor) -> Tensor:
    """Forward and backward of a batch in micro-batches; its mean loss."""
    count = max(1, MICRO_BATCH_TOKENS // inputs.size(1))
    parts = list(zip(inputs.split(count), targets.split(count), strict=True))
    return sum(compute.backward(*part, 1 / len(parts)) for part in parts) / len(parts)


def train_one(arguments: argparse.Namespace, text: Text, recipe: Recipe, seed: int) -> dict:
    """One run: its losses, its scores with the last and with averaged weights, and where its scalars ended."""
    began = time.monotonic()
    config = ModelShape.of_depth(arguments.depth, arguments.sequence_length, arguments.window_pattern, text.vocab_size)
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    model, compute, optimizer = learner(arguments, config, recipe, seed if arguments.vary != "order" else 1)
    parameters = [p.detach() for p in model.parameters()]
    sums = {share: [torch.zeros_like(p, dtype=torch.float32) for p in parameters] for share in AVERAGES}
    counts = dict.fromkeys(AVERAGES, 0)
    losses = []
    batch_rows, order = (
        arguments.batch_tokens // arguments.sequence_length,
        seed if arguments.vary != "weights" else None,
    )
    for step, batch in enumerate(text.batches(batch_rows, plan.iterations, order)):
        optimizer.zero_grad()
        losses.append(accumulate(compute, *batch))
        optimizer.step(*schedule(step, plan))
        for share in AVERAGES:
            if step >= plan.iterations * (1 - share):
                torch._foreach_add_(sums[share], [p.float() for p in parameters])
                counts[share] += 1
    curve = torch.stack(losses).tolist()
    stepped = time.monotonic() - began
    result = {"recipe": recipe.name, "seed": seed, "loss": statistics.fmean(curve[-LAST_STEPS:])}
    result["bpb"] = text.bits_per_byte(compute)
    result["scalars"] = {
        n: [round(v, 4) for v in p.flatten().tolist()] for n, p in model.named_parameters() if n in SCALARS
    }
    for share in AVERAGES:
        for parameter, total in zip(parameters, sums[share], strict=True):
            parameter.copy_(total / counts[share])
        compute.invalidate()
        result[f"bpb_mean_{share}"] = text.bits_per_byte(compute)
    return result | {
        "curve": [round(v, 4) for v in curve], "description": compute.description, "seconds_of_steps": round(stepped, 2),
        "seconds": round(time.monotonic() - began, 2),
    }  # fmt: skip


def chi_square(probability: float, freedom: int) -> float:
    """The quantile, by bisection."""
    low, high = 0.0, 10.0 * freedom + 50.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = torch.special.gammainc(*torch.tensor([freedom / 2, middle / 2], dtype=torch.float64))
        low, high = (middle, high) if reached < probability else (low, middle)
    return middle


def deviation_interval(deviation: float, count: int) -> tuple[float, float]:
    """95 % interval of a standard deviation estimated from `count` normal values."""
    freedom = count - 1
    low, high = (deviation * math.sqrt(freedom / chi_square(p, freedom)) for p in (0.975, 0.025))
    return low, high


def summarize(results: Sequence[dict]) -> str:
    """A row of the table: n, training loss, and bits per byte by the last and by averaged weights, each mean and sd."""
    cells = [results[0]["recipe"], str(len(results))]
    for key in ("loss", "bpb", *(f"bpb_mean_{share}" for share in AVERAGES)):
        values = [result[key] for result in results]
        cells.append(f"{statistics.fmean(values):.4f}")
        if len(values) < 2:
            cells.append("")
            continue
        deviation = statistics.stdev(values)
        low, high = deviation_interval(deviation, len(values))
        cells.append(f"{deviation:.4f}" + (f" ({low:.4f} to {high:.4f})" if key in ("loss", "bpb") else ""))
    cells.append(f"{statistics.median(r['seconds_of_steps'] for r in results):.1f}")
    return "| " + " | ".join(cells) + " |"


def compare_seeds(by_recipe: dict[str, dict[int, float]]) -> Iterator[str]:
    """For each two recipes with three seeds or more in common: correlation of their bits per byte, and sd of the difference.

    A high correlation says that what is left of the noise is the seed's own effect, not rounding.
    """
    for (one, a), (other, b) in itertools.combinations(by_recipe.items(), 2):
        seeds = sorted(a.keys() & b.keys())
        if len(seeds) > 2:
            x, y = np.array([a[seed] for seed in seeds]), np.array([b[seed] for seed in seeds])
            correlation = np.corrcoef(x, y)[0, 1]
            yield f"| {one} | {other} | {len(seeds)} | {correlation:.3f} | {(x - y).std(ddof=1):.5f} |"


def train(arguments: argparse.Namespace) -> None:
    """Train every recipe from every seed, write a line of JSON for each run, print the table."""
    began = time.monotonic()
    text = Text.load(arguments.folder, arguments.sequence_length, arguments.device)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    epochs = arguments.tokens / (len(text.rows) * arguments.sequence_length)
    print(f"{name}, torch {torch.__version__}, d{arguments.depth}, T {arguments.sequence_length}, batch "
          f"{arguments.batch_tokens:,}, {arguments.tokens:,} tokens ({epochs:.2f} epochs), vary {arguments.vary}", flush=True)  # fmt: skip
    averages = " | ".join(f"mean of last {share:.0%} | sd" for share in AVERAGES)
    print(
        f"| recipe | n | loss | sd | bits per byte | sd | {averages} | s |\n|{' --- |' * (7 + 2 * len(AVERAGES))}",
        flush=True,
    )
    settings = {
        key: value for key, value in vars(arguments).items() if key not in ("folder", "out", "command", "recipes")
    }
    scores: dict[str, dict[int, float]] = {}
    with arguments.out.open("a") as out:
        for recipe_name in arguments.recipes:
            recipe_name, _, seeds = recipe_name.partition(":")
            recipe, results = Recipe.parse(recipe_name), []
            try:
                for seed in range(1, int(seeds or arguments.seeds) + 1):
                    if time.monotonic() - began > arguments.seconds:
                        break
                    results.append(train_one(arguments, text, recipe, seed))
                    out.write(json.dumps(results[-1] | {"settings": settings, "device": name}) + "\n")
                    out.flush()
                    gc.collect()  # a model and its hooks hold each other
            except (RuntimeError, ValueError) as error:  # the other recipes still have their turn
                print(f"{recipe_name}: {type(error).__name__}: {error}", flush=True)
            if results:
                print(summarize(results), flush=True)
                scores[recipe_name] = {result["seed"]: result["bpb"] for result in results}
    print("\n| recipe | other | seeds | correlation | sd of the difference |\n|" + " --- |" * 5)
    print(*compare_seeds(scores), f"{time.monotonic() - began:.0f} s", sep="\n", flush=True)


def gradients(arguments: argparse.Namespace) -> None:
    """Print the scalars' gradients in fp32, their errors in bf16 and with exact sums, and their spread over batches."""
    text = Text.load(arguments.folder, arguments.sequence_length, arguments.device)
    config = ModelShape.of_depth(arguments.depth, arguments.sequence_length, arguments.window_pattern, text.vocab_size)
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    leader, compute, optimizer = learner(arguments, config, Recipe.parse("fp32"), 1)
    others = {name: learner(arguments, config, Recipe.parse(name), 1) for name in ("fp32", "upstream", "exact")}
    batches = list(text.batches(arguments.batch_tokens // arguments.sequence_length, plan.iterations + 8, None))
    print("| step | parameter | fp32 | error in bf16 | error with exact sums | sd over batches |\n|" + " --- |" * 6)

    def of(name: str, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The scalars' gradients by another computation at the leader's weights, embeddings rounded to bf16 for all alike."""
        model, twin, _ = others[name]
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), leader.parameters(), strict=True):
                mine.copy_(theirs.to(torch.bfloat16) if theirs.shape == leader.lm_head.weight.shape else theirs)
        twin.invalidate()
        for gradient in twin.storage.grads.values():
            gradient.zero_()
        accumulate(twin, *batch)
        return {
            n: twin.storage.grads[p].flatten().double().clone() for n, p in model.named_parameters() if n in SCALARS
        }

    for step in range(plan.iterations):
        if step in arguments.at:
            found = {name: of(name, batches[step]) for name in others}
            spread = [of("fp32", batch) for batch in batches[step : step + 8]]
            for name in SCALARS:
                true = found["fp32"][name]
                over = torch.stack([one[name] for one in spread]).std(0).norm()
                errors = [(found[kind][name] - true).norm() for kind in ("upstream", "exact")]
                print(
                    f"| {step} | {name} | " + " | ".join(f"{v:.2e}" for v in (true.norm(), *errors, over)) + " |",
                    flush=True,
                )
        optimizer.zero_grad()
        accumulate(compute, *batches[step])
        optimizer.step(*schedule(step, plan))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.verdict noise", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("pack", "train", "gradients"))
    parser.add_argument("folder", type=Path, help="where the packed text is, or goes (pack)")
    parser.add_argument(
        "texts", type=Path, nargs="*", help="parquet files with a column `text`, such as an arm's shards (pack)"
    )
    parser.add_argument("--vocab-size", type=int, default=8_192, help="of the tokenizer (pack)")
    parser.add_argument(
        "--recipes", nargs="+", default=["upstream"], help="each with :N for another number of seeds (train)"
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument(
        "--vary", choices=("weights", "order", "both"), default="weights", help="what a seed draws anew"
    )
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--window-pattern", default="L")
    parser.add_argument("--batch-tokens", type=int, default=16_384)
    parser.add_argument("--tokens", type=int, default=185 * 16_384)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no run after so many (train)")
    parser.add_argument("--out", type=Path, default=Path("noise.jsonl"), help="a line of JSON for each run (train)")
    parser.add_argument("--at", type=int, nargs="+", default=[0, 5, 20, 60, 150], help="steps to look at (gradients)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(words)
    commands = {"pack": lambda a: pack(a.texts, a.folder, a.vocab_size), "train": train, "gradients": gradients}
    commands[arguments.command](arguments)


if __name__ == "__main__":
    main()
