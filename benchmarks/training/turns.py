"""What single choices are worth: steps of one model with and without each, in turn in one process, so that clocks and load are alike."""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.training.tokens import rows_of_tokens
from tasks.engines.builtin import attention
from tasks.engines.builtin.compute import build_compute, embedding_dtype
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.engines.builtin.schedule import Rates
from tasks.records.scaling import ModelShape, plan_training

ROUNDS = 5
WARM_UP = 2


@dataclass(frozen=True)
class Choice:
    """What a way does otherwise than the trainer."""

    graphed: bool | None = None
    pattern: str | None = None
    attend: Callable[[], attention.Attend] | None = None


WAYS = {
    "kernel by kernel": Choice(graphed=False),
    "graphs": Choice(graphed=True),
    "full": Choice(pattern="L"),
    "windows": Choice(pattern="SSSL"),
    "windows by FlexAttention": Choice(pattern="SSSL", attend=attention._cudnn_and_flex),
}


class Way:
    """A model that is trained in one way."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name, choice = name, WAYS[name]
        pattern = choice.pattern or given.window_pattern
        config = ModelShape.of_depth(given.depth, given.sequence_length, pattern)
        plan = plan_training(config, tokens=3000 * given.batch_tokens, batch_tokens=given.batch_tokens)
        with torch.device("cuda"):
            self.model = GPT(config, embedding_dtype(given.precision))
        self.model.init_weights(1)
        self.compute = build_compute(self.model, given.precision, deterministic=given.deterministic)
        self.optimizer = build_optimizer(self.model, plan)
        self.rates = Rates(1.0, 0.95, plan.weight_decay)
        if choice.graphed is not None:
            self.compute.graphed = self.optimizer.graphed = choice.graphed
        if choice.attend is not None:
            self.compute.attend = choice.attend()
        self.loss = float("nan")

    def steps(self, x: torch.Tensor, y: torch.Tensor, accumulation: int, count: int) -> float:
        """Seconds of a step, the mean of `count`."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            self.optimizer.zero_grad()
            for _ in range(accumulation):
                loss = self.compute.backward(x, y, 1 / accumulation)
            self.optimizer.step(*self.rates)
        torch.cuda.synchronize()
        self.loss = loss.item()
        return (time.perf_counter() - start) / count

    def digest(self) -> str:
        """Of all weights."""
        found = hashlib.sha256()
        for parameter in self.model.parameters():
            found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
        return found.hexdigest()[:12]


def main(given: argparse.Namespace) -> None:
    """Print tokens/s of each way, their ratio to the first, and whether the weights have the same bits."""
    vocab_size = ModelShape.of_depth(given.depth).vocab_size
    rows = min(given.rows, given.batch_tokens // given.sequence_length)
    tokens = rows_of_tokens(rows, given.sequence_length, vocab_size).cuda()
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    accumulation = given.batch_tokens // (rows * given.sequence_length)
    ways = [Way(name, given) for name in given.ways]
    for way in ways:
        way.steps(x, y, accumulation, WARM_UP)
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            seconds[way.name].append(way.steps(x, y, accumulation, given.steps))
    first = statistics.median(seconds[ways[0].name])
    print(f"{torch.cuda.get_device_name()}, d{given.depth}, {given.precision}, batch "
          f"{given.batch_tokens:,} = {accumulation} x {rows} rows; {ways[-1].compute.description}")  # fmt: skip
    for way in ways:
        took = statistics.median(seconds[way.name])
        print(f"  {way.name:24} {took * 1e3:8.2f} ms ({min(seconds[way.name]) * 1e3:.2f} to {max(seconds[way.name]) * 1e3:.2f})  "
              f"{given.batch_tokens / took:11,.0f} tokens/s  {first / took:.3f} x  loss {way.loss:.6f}  {way.digest()}", flush=True)  # fmt: skip
