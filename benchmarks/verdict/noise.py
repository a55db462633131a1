"""How much do replicates of a small run differ, and why? `python -m benchmarks.verdict noise pack|train|table|gradients ...`

pack: encodes the texts of parquet files: a holdout, and arms of the rest.
train: trains each of some arms from several seeds under each of several recipes, all in one process, and appends a line of JSON for
    each run to `--out`. A process each GPU, with seeds of its own (quiet:1-6, quiet:7-12), shares the work.
table: prints of such files the mean and standard deviation (sd) of the training loss and of the holdout's bits per byte, and how far
    two recipes, and two arms, agree seed by seed. `train` ends with it, too.
gradients: follows one training in fp32 and prints how far the scalars' gradients are off in bf16.

A recipe is "upstream" or "quiet" (`tasks.spec.Recipe`), or upstream's with changes joined by "+":
    factor=0.1      the rates of all scalars (`SCALARS`) times 0.1; 0 freezes them
    NAME=0.1        the same for one of them, such as backout_lambda=0.1, or for wte, lm_head or value_embeds
    epsilon=1e-2    Adam's epsilon for the scalars; quiet is 0.1
    muon=0.5        the rate of the matrices times 0.5; adam=0.5 those of embeddings and output matrix
    rise=80         all rates rise over 80 steps instead of 40
    zero=lm_head    initial weights of 0, for the parameters whose name holds this word
    fp32, fp8       the precision of products, instead of bf16
    autograd        PyTorch's autograd instead of the fused kernels

A seed draws anew what `--vary` names: the initial weights (of all parameters, or of those whose name holds a given word), the order
of the rows, or both. noise.md has the results.
"""

import argparse
import gc
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.verdict.packed import Text, pack
from tasks import spec
from tasks.engines.builtin.adamw import AdamW
from tasks.engines.builtin.compute import Compute, build_compute, embedding_dtype
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import SCALARS, Optimizer, build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import WARMUP_STEPS, ModelShape, plan_training

LAST_STEPS = 25
"""The training loss is the mean of so many last steps."""
MICRO_BATCH_TOKENS = 131_072
TABLES = ("wte", "lm_head", "value_embeds")
"""Embeddings and output matrix, by a word of their parameters' names."""


@dataclass(frozen=True)
class Recipe:
    """What one row of the table is trained with."""

    name: str
    base: spec.Recipe = "upstream"
    epsilon: float | None = None
    factors: dict[str, float] = field(default_factory=dict)
    """Of the rates, by the parameter's name or a word of it."""
    muon: float = 1.0
    adam: float = 1.0
    rise: int = WARMUP_STEPS
    zero: str | None = None
    precision: str = "bf16"
    kernels: bool = True

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """A recipe by its name. Raises ValueError for a part that there is not."""
        changes: dict[str, Any] = {"factors": {}}
        for part in name.split("+"):
            key, _, value = part.partition("=")
            if key in ("upstream", "quiet"):
                changes["base"] = key
            elif key in ("fp32", "fp8"):
                changes["precision"] = key
            elif key == "autograd":
                changes["kernels"] = False
            elif key in ("epsilon", "muon", "adam"):
                changes[key] = float(value)
            elif key == "zero":
                changes[key] = value
            elif key == "rise":
                changes[key] = int(value)
            elif key == "factor":
                changes["factors"] |= dict.fromkeys(SCALARS, float(value))
            elif key in (*SCALARS, *TABLES):
                changes["factors"][key] = float(value)
            else:
                raise ValueError(f"there is no recipe {part}")
        return cls(name, **changes)

    def group(self, name: str, upstream: AdamW) -> AdamW:
        """The constants of a parameter, by those of `base`."""
        factor = math.prod(f for key, f in self.factors.items() if key in name) * (1 if name in SCALARS else self.adam)
        epsilon = self.epsilon if name in SCALARS and self.epsilon is not None else upstream.epsilon
        return upstream._replace(lr=upstream.lr * factor, epsilon=epsilon)


def learner(
    arguments: argparse.Namespace, config: ModelShape, recipe: Recipe, seed: int
) -> tuple[GPT, Compute, Optimizer]:
    """Model, computation and optimizer of one run. `seed` draws the initial weights that `--vary` names, seed 1 the others."""
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    model = GPT(config, embedding_dtype(recipe.precision))
    model.init_weights(1)
    if arguments.vary != "order":
        drawn, part = GPT(config, embedding_dtype(recipe.precision)), arguments.vary
        drawn.init_weights(seed)
        chosen = {n: w for n, w in drawn.state_dict().items() if part in ("weights", "both") or part in n}
        if not chosen:
            raise ValueError(f"--vary is {part}: give weights, order, both or a part of a parameter's name")
        model.load_state_dict(chosen, strict=False)
    for name, parameter in model.named_parameters():
        if recipe.zero is not None and recipe.zero in name:
            parameter.detach().zero_()
    model.to(arguments.device)
    compute = build_compute(model, recipe.precision, recipe.kernels)
    optimizer = build_optimizer(model, plan, recipe.base)
    optimizer.matrix_lr *= recipe.muon
    optimizer.groups = {name: recipe.group(name, group) for name, group in optimizer.groups.items()}
    return model, compute, optimizer


def accumulate(compute: Compute, inputs: Tensor, targets: Tensor) -> Tensor:
    """Forward and backward of a batch in micro-batches; its mean loss."""
    count = max(1, MICRO_BATCH_TOKENS // inputs.size(1))
    parts = list(zip(inputs.split(count), targets.split(count), strict=True))
    return sum(compute.backward(*part, 1 / len(parts)) for part in parts) / len(parts)


def train_one(arguments: argparse.Namespace, text: Text, recipe: Recipe, seed: int) -> dict:
    """One run: its losses, its score, and where its scalars ended."""
    began = time.monotonic()
    config = ModelShape.of_depth(arguments.depth, arguments.sequence_length, arguments.window_pattern, text.vocab_size)
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    model, compute, optimizer = learner(arguments, config, recipe, seed)
    losses, order = [], seed if arguments.vary in ("order", "both") else 0
    for step, batch in enumerate(
        text.batches(arguments.batch_tokens // arguments.sequence_length, plan.iterations, order)
    ):
        optimizer.zero_grad()
        losses.append(accumulate(compute, *batch))
        rates = schedule(step, plan)
        risen = (step + 1) / recipe.rise if step < max(recipe.rise, WARMUP_STEPS) else rates.lr_scale
        optimizer.step(*rates._replace(lr_scale=min(risen, rates.lr_scale if step >= WARMUP_STEPS else 1.0)))
    curve = torch.stack(losses).tolist()
    stepped = time.monotonic() - began
    return {
        "recipe": recipe.name, "seed": seed, "loss": statistics.fmean(curve[-LAST_STEPS:]), "bpb": text.bits_per_byte(compute),
        "scalars": {n: [round(v, 4) for v in p.flatten().tolist()] for n, p in model.named_parameters() if n in SCALARS},
        "curve": [round(v, 4) for v in curve], "description": compute.description,
        "seconds_of_steps": round(stepped, 2), "seconds": round(time.monotonic() - began, 2),
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
    """A row of the table: run, recipe, arm, n, mean and sd of the training loss and of the bits per byte, median seconds of a run."""
    cells = [*kind(results[0]), str(len(results))]
    for key in ("loss", "bpb"):
        values = [result[key] for result in results]
        cells.append(f"{statistics.fmean(values):.4f}")
        if len(values) < 2:
            cells.append("")
            continue
        low, high = deviation_interval(deviation := statistics.stdev(values), len(values))
        cells.append(f"{deviation:.4f} ({low:.4f} to {high:.4f})")
    cells.append(f"{statistics.median(r['seconds'] for r in results):.1f}")
    return "| " + " | ".join(cells) + " |"


def kind(result: dict) -> tuple[str, str, str]:
    """What a seed repeats: depth, tokens and what is drawn; recipe; arm."""
    of = result["settings"]
    run = (
        f"d{of['depth']}, T {of['sequence_length']:,}, {of['batch_tokens']:,} a step, {of['tokens'] / 1e6:.1f} M tokens"
    )
    return f"{run}, {of['vary']}", result["recipe"], result["arm"]


def compare_seeds(scores: dict[tuple[str, str, str], dict[int, float]]) -> Iterator[str]:
    """For each two rows that differ in recipe or in arm alone and share three seeds: how their bits per byte agree seed by seed.

    The mean of the difference and its sd, of the pairs and as of independent runs. A high correlation says that the noise is the
    seed's own effect, not rounding.
    """
    for (one, a), (other, b) in itertools.combinations(scores.items(), 2):
        seeds = sorted(a.keys() & b.keys())
        if len(seeds) > 2 and one[0] == other[0] and (one[1] == other[1]) != (one[2] == other[2]):
            x, y = np.array([a[seed] for seed in seeds]), np.array([b[seed] for seed in seeds])
            independent = math.hypot(x.std(ddof=1), y.std(ddof=1))
            yield (
                f"| {' '.join(one[1:])} | {' '.join(other[1:])} | {len(seeds)} | {np.corrcoef(x, y)[0, 1]:.3f} "
                f"| {(x - y).mean():+.4f} | {(x - y).std(ddof=1):.5f} | {independent:.5f} | {one[0]} |"
            )


def table(files: Sequence[Path]) -> None:
    """Print the tables of what `train` wrote into some files."""
    rows: dict[tuple[str, str, str], list[dict]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        rows.setdefault(kind(result := json.loads(line)), []).append(result)
    print(f"| run | recipe | arm | n | loss | sd | bits per byte | sd | s |\n|{' --- |' * 9}")
    print(*(summarize(rows[key]) for key in rows), sep="\n")
    print(f"\n| one | other | seeds | correlation | difference | sd in pairs | sd unpaired | run |\n|{' --- |' * 8}")
    scores = {key: {result["seed"]: result["bpb"] for result in rows[key]} for key in rows}
    print(*compare_seeds(scores), sep="\n", flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Train every arm under every recipe from every seed, write a line of JSON for each run, print the tables."""
    began = time.monotonic()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    print(f"{name}, torch {torch.__version__}", flush=True)
    texts = {
        arm: Text.load(arguments.folder, arm, arguments.sequence_length, arguments.device) for arm in arguments.arms
    }
    for arm, text in texts.items():
        print(f"{arm}: {arguments.tokens / (len(text.rows) * arguments.sequence_length):.2f} epochs", flush=True)
    left_out = ("folder", "out", "command", "recipes", "texts", "arms")
    settings = {key: value for key, value in vars(arguments).items() if key not in left_out}
    with arguments.out.open("a") as out:
        for recipe_name, arm in itertools.product(arguments.recipes, texts):
            recipe_name, _, seeds = recipe_name.partition(":")
            first, _, last = (seeds or str(arguments.seeds)).rpartition("-")
            recipe = Recipe.parse(recipe_name)
            try:
                for seed in range(int(first or 1), int(last) + 1):
                    if time.monotonic() - began > arguments.seconds:
                        break
                    result = train_one(arguments, texts[arm], recipe, seed) | {"arm": arm}
                    out.write(json.dumps(result | {"settings": settings, "device": name}) + "\n")
                    out.flush()
                    gc.collect()  # a model and its hooks hold each other
            except (RuntimeError, ValueError) as error:  # the others still have their turn
                print(f"{recipe_name}: {type(error).__name__}: {error}", flush=True)
    table([arguments.out])
    print(f"{time.monotonic() - began:.0f} s")


def gradients(arguments: argparse.Namespace) -> None:
    """Print the scalars' gradients in fp32, their errors in bf16, and their spread over batches."""
    text = Text.load(arguments.folder, arguments.arms[0], arguments.sequence_length, arguments.device)
    config = ModelShape.of_depth(arguments.depth, arguments.sequence_length, arguments.window_pattern, text.vocab_size)
    plan = plan_training(config, arguments.tokens, arguments.batch_tokens)
    leader, compute, optimizer = learner(arguments, config, Recipe.parse("fp32"), 1)
    others = {name: learner(arguments, config, Recipe.parse(name), 1) for name in ("fp32", "upstream")}
    batches = list(text.batches(arguments.batch_tokens // arguments.sequence_length, plan.iterations + 8, 0))
    print("| step | parameter | fp32 | error in bf16 | sd over batches |\n|" + " --- |" * 5)

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
                error = (found["upstream"][name] - true).norm()
                print(f"| {step} | {name} | {true.norm():.2e} | {error:.2e} | {over:.2e} |", flush=True)
        optimizer.zero_grad()
        accumulate(compute, *batches[step])
        optimizer.step(*schedule(step, plan))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.verdict noise", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("pack", "train", "table", "gradients"))
    parser.add_argument("folder", type=Path, help="where the packed text is, or goes (pack); the first file (table)")
    parser.add_argument(
        "texts",
        type=Path,
        nargs="*",
        help="parquet files with a column `text`, such as an arm's shards (pack); more files of `train` (table)",
    )
    parser.add_argument("--vocab-size", type=int, default=8_192, help="of the tokenizer (pack)")
    parser.add_argument("--most-tokens", type=int, default=14_000_000, help="of an arm (pack)")
    parser.add_argument("--arms", nargs="+", default=["all"], help="each NAME:SHARE (pack), NAME or NAME/crop (train)")
    parser.add_argument(
        "--recipes", nargs="+", default=["upstream"], help="each with :N or :FIRST-LAST for other seeds (train)"
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--vary", default="weights", help="weights, order, both, or a part of a parameter's name")
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
    commands = {
        "pack": lambda a: pack(a.texts, a.folder, a.vocab_size, a.arms, a.most_tokens),
        "train": train,
        "table": lambda a: table([a.folder, *a.texts]),
        "gradients": gradients,
    }
    commands[arguments.command](arguments)


if __name__ == "__main__":
    main()
