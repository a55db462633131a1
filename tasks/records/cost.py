"""What a run will cost, before anything is spent: hours, dollars, disk, egress.

Speed comes from measurements, never from a guess: the installation's own finished runs (the ledger) where one is alike, else
the table in `rates.json`, each row with its source. Between model sizes the achieved FLOP/s is carried over from the
nearest one measured, between numbers of GPUs linearly; `Estimate.source` says which row was used and how far it was carried.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.records.ledger import LedgerEntry
from tasks.spec import Training

RATES = Path(__file__).with_name("rates.json")
HEAD = 128  # the model's width is a multiple of the head dimension


@dataclass(frozen=True)
class Estimate:
    """One run's cost; `dollars`, `gpu_hours`, `disk_bytes` and egress are of all `runs`, `hours` is one run's wall time."""

    label: str
    runs: int
    tokens: int
    steps: int
    parameters: int
    flops_per_token: float
    tokens_per_second: float | None
    source: str
    hours: float | None
    gpu_hours: float | None
    dollars: float | None
    disk_bytes: int
    egress_bytes: int
    egress_dollars: float


@cache
def rates() -> dict[str, Any]:
    """The table of measured throughput and prices."""
    return json.loads(RATES.read_text())


def width(depth: int) -> int:
    """Width of nanochat's model: 64 a layer, rounded up to a multiple of 128."""
    return math.ceil(64 * depth / HEAD) * HEAD


def scaling_parameters(depth: int, vocab_size: int) -> int:
    """Matrices of the blocks (12 C^2 a layer) and the output matrix: what nanochat's scaling rules count."""
    channels = width(depth)
    return 12 * channels**2 * depth + vocab_size * channels


def model_parameters(depth: int, vocab_size: int) -> int:
    """All weights but a few hundred scalars: d20 with 32,768 tokens has 896.5 M.

    Beside the scaling parameters: the token embedding, and a value embedding in every second layer.
    """
    return scaling_parameters(depth, vocab_size) + vocab_size * width(depth) * (1 + math.ceil(depth / 2))


def flops_per_token(depth: int, sequence_length: int, window_pattern: str, vocab_size: int) -> float:
    """FLOPs of forward and backward by nanochat's count: 6 a linear weight, 12 C min(window, T) a layer of attention."""
    short = math.ceil(sequence_length / 4 / 128) * 128
    windows = [short if window_pattern[i % len(window_pattern)] == "S" else sequence_length for i in range(depth)]
    windows[-1] = sequence_length
    attention = sum(12 * width(depth) * min(window, sequence_length) for window in windows)
    return 6 * scaling_parameters(depth, vocab_size) + attention


def batch_tokens(training: Training, tokens: int, vocab_size: int) -> int:
    """Tokens of one step: as given, else nanochat's rule 2^round(log2(2^19 (D/D12)^0.383)), D12 = 12 tokens a parameter."""
    if training.batch_tokens is not None:
        return training.batch_tokens
    ratio = tokens / (12 * scaling_parameters(12, vocab_size))
    return 2 ** round(19 + 0.383 * math.log2(ratio))


def checkpoint_bytes(depth: int, vocab_size: int) -> int:
    """Weights and optimizer: 8 bytes a block weight (fp32, momentum), 12 in the output matrix, 6 in bf16 embeddings."""
    matrices = 12 * width(depth) ** 2 * depth
    head = vocab_size * width(depth)
    embeddings = model_parameters(depth, vocab_size) - matrices - head
    return 8 * matrices + 12 * head + 6 * embeddings


def estimate(
    training: Training,
    tokens: int,
    *,
    vocab_size: int = 32_768,
    holdout_tokens: int = 0,
    read_bytes: int = 0,
    disk_bytes: int = 0,
    runs: int = 1,
    label: str = "",
    ledger: Sequence[LedgerEntry] = (),
    device: str | None = None,
) -> Estimate:
    """Cost of `runs` runs of `tokens` trained tokens each.

    `holdout_tokens` are evaluated every `eval_every` steps, at a third of a trained token's cost. `read_bytes` leave the
    blob store once and `disk_bytes` (text shards) lie once, whatever the number of runs. `ledger`: entries of
    `ledger.entries`. `device`: name of the GPU, or "cpu"; default: what `training.device` says, else the table's default.
    Raises InputError when `tokens` is below 1.
    """
    if tokens < 1:
        raise InputError(f"The budget is {tokens} tokens: give at least 1.")
    device = device or ("cpu" if training.device == "cpu" else rates()["default_device"])
    flops = flops_per_token(training.depth, training.sequence_length, training.window_pattern, vocab_size)
    steps = max(1, tokens // batch_tokens(training, tokens, vocab_size))
    speed, start, source = _speed(training, flops, device, ledger)
    hours = None
    if speed:
        evaluations = 1 + steps // training.eval_every
        hours = (tokens / speed + evaluations * holdout_tokens / (3 * speed) + start) / 3600
    gpu_hours = hours * training.gpus * runs if hours is not None else None
    egress = rates()["egress"]
    return Estimate(
        label=label,
        runs=runs,
        tokens=tokens,
        steps=steps,
        parameters=model_parameters(training.depth, vocab_size),
        flops_per_token=flops,
        tokens_per_second=speed,
        source=source,
        hours=hours,
        gpu_hours=gpu_hours,
        dollars=_dollars(training, gpu_hours, device),
        disk_bytes=disk_bytes + 2 * tokens + runs * training.keep_last * checkpoint_bytes(training.depth, vocab_size),
        egress_bytes=read_bytes,
        egress_dollars=read_bytes / 1e9 * egress["dollars_per_gb"],
    )


def total(costs: Sequence[Estimate], label: str) -> Estimate:
    """All of them together; what is of one run (tokens, steps, hours) stays that of the first, and so does its source."""

    def added(name: str) -> Any:
        values = [getattr(cost, name) for cost in costs]
        return None if None in values else sum(values)

    summed = ("runs", "gpu_hours", "dollars", "disk_bytes", "egress_bytes", "egress_dollars")
    return replace(costs[0], label=label, **{name: added(name) for name in summed})


def _dollars(training: Training, gpu_hours: float | None, device: str) -> float | None:
    if device == "cpu":
        return 0.0
    return gpu_hours * training.dollars_per_gpu_hour if gpu_hours is not None else None


def _speed(
    training: Training, flops: float, device: str, ledger: Sequence[LedgerEntry]
) -> tuple[float | None, float, str]:
    """(tokens per second, seconds before the first step, where both come from); (None, 0, why) when nothing is alike."""
    rows = [row for entry in ledger if (row := _row_of(entry)) is not None] + rates()["throughput"]
    rows = [row for row in rows if row["device"].lower() == device.lower()]
    if not rows:
        return None, 0.0, f"no measured run on {device!r}: the first one will tell"

    def distance(row: Mapping[str, Any]) -> tuple[bool, bool, float, bool, bool]:
        """Same engine and precision before same size before same number of GPUs; own runs before the table."""
        size = abs(math.log(_flops_of(row) / flops))
        own = row.get("own", False)
        return (
            row["precision"] != training.precision,
            row["engine"] != training.engine,
            size,
            row["gpus"] != training.gpus,
            not own,
        )

    row = min(rows, key=distance)
    speed = row["tokens_per_second"] * _flops_of(row) / flops * training.gpus / row["gpus"]
    carried = [
        f"{name} {row[key]} -> {getattr(training, key)}"
        for key, name in (("engine", "engine"), ("precision", "precision"), ("depth", "depth"), ("gpus", "GPUs"))
        if row[key] != getattr(training, key)
    ]
    note = f"; carried over from {', '.join(carried)}" if carried else ""
    return speed, float(row.get("start_seconds", 0)), row["source"] + note


def _flops_of(row: Mapping[str, Any]) -> float:
    return flops_per_token(row["depth"], row["sequence_length"], row["window_pattern"], row["vocab_size"])


def _row_of(entry: LedgerEntry) -> dict[str, Any] | None:
    """A finished ledger entry as a row of the throughput table, or None when it measured nothing."""
    if entry.state != "completed" or not entry.tokens_per_second or not entry.device:
        return None
    training = entry.experiment.training
    return {
        "device": entry.device,
        "gpus": entry.gpus or training.gpus,
        "engine": training.engine,
        "precision": training.precision,
        "depth": training.depth,
        "sequence_length": training.sequence_length,
        "window_pattern": training.window_pattern,
        "vocab_size": entry.experiment.pool.vocab_size,
        "tokens_per_second": entry.tokens_per_second,
        "own": True,
        "source": f"own run {entry.run}",
    }
