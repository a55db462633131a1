"""What runs will cost, before anything is spent: hours, dollars, disk, egress.

Speed is measured, never guessed: taken from a similar finished run of this installation (the ledger) if there is one, else from
the table in `rates.json`, where each row names its source. The achieved FLOP/s of the nearest measured size is carried over to
other model sizes, and scaled linearly to other numbers of GPUs; `CostEstimate.source` says which row was used and what differed.
A GPU that nobody measured gets the speed of one that was, scaled by their peaks and marked so; without a known peak it has none.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.records.devices import peak_flops
from tasks.records.ledger import LedgerEntry
from tasks.records.scaling import ModelShape, choose_batch, flops_per_token, parameter_counts
from tasks.spec import Training

RATES = Path(__file__).with_name("rates.json")


@dataclass(frozen=True)
class CostEstimate:
    """Cost of `runs` identical runs. `gpu_hours`, `dollars`, disk and egress are totals; the rest is of one run.

    None where neither that device nor one to scale from was measured.
    """

    label: str
    runs: int
    tokens: int
    """The budget."""
    steps: int
    """Whole batches in the budget; 0 where it does not fill one, which a training refuses."""
    parameters: int
    flops_per_token: float
    tokens_per_second: float | None
    source: str
    """Where the speed comes from."""
    scaled: bool
    """Measured on another GPU, and scaled by peak FLOP/s."""
    hours: float | None
    """Wall time."""
    gpu_hours: float | None
    dollars: float | None
    disk_bytes: int
    egress_bytes: int
    egress_dollars: float


@dataclass(frozen=True)
class Throughput:
    """The measured speed of one training."""

    device: str
    gpus: int
    engine: str
    precision: str
    depth: int
    sequence_length: int
    window_pattern: str
    vocab_size: int
    tokens_per_second: float
    source: str
    start_seconds: float = 0.0
    """Before the first step."""
    own: bool = False
    """Measured by this installation."""

    @property
    def flops_per_token(self) -> int:
        return flops_per_token(
            ModelShape.of_depth(self.depth, self.sequence_length, self.window_pattern, self.vocab_size)
        )


@dataclass(frozen=True)
class RateTable:
    """The table of measured speeds and of prices."""

    default_device: str
    throughput: tuple[Throughput, ...]
    egress_dollars_per_gb: float


@cache
def rate_table() -> RateTable:
    """What `rates.json` holds."""
    table = json.loads(RATES.read_text())
    throughput = tuple(Throughput(**row) for row in table["throughput"])
    return RateTable(table["default_device"], throughput, table["egress"]["dollars_per_gb"])


def checkpoint_bytes(shape: ModelShape) -> int:
    """Weights and optimizer: 8 bytes a block weight (fp32, momentum), 12 in the output matrix, 6 in bf16 embeddings."""
    counts = parameter_counts(shape)
    return 8 * counts.matrices + 12 * counts.lm_head + 6 * counts.embeddings


def estimate_cost(
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
) -> CostEstimate:
    """Cost of `runs` runs of `tokens` trained tokens each.

    `holdout_tokens` are evaluated every `eval_every` steps, at a third of a trained token's cost. `read_bytes` leave the
    blob store once and `disk_bytes` (text shards) are stored once, whatever the number of runs. `ledger`: entries of
    `ledger.entries`. `device`: name of the GPU, or "cpu"; default: what `training.device` says, else the table's default.
    Raises InputError when `tokens` is below 1 or `training.batch_tokens` is not whole rows.
    """
    if tokens < 1:
        raise InputError(f"The budget is {tokens} tokens: give at least 1.")
    device = device or ("cpu" if training.device == "cpu" else rate_table().default_device)
    shape = ModelShape.of(training, vocab_size)
    flops = flops_per_token(shape)
    steps = tokens // choose_batch(shape, training.batch_tokens)
    speed, start, source, scaled = _speed(training, flops, device, ledger)
    hours = None
    if speed:
        evaluations = 1 + steps // training.eval_every
        hours = (tokens / speed + evaluations * holdout_tokens / (3 * speed) + start) / 3600
    gpu_hours = hours * training.gpus * runs if hours is not None else None
    return CostEstimate(
        label=label,
        runs=runs,
        tokens=tokens,
        steps=steps,
        parameters=parameter_counts(shape).total,
        flops_per_token=flops,
        tokens_per_second=speed,
        source=source,
        scaled=scaled,
        hours=hours,
        gpu_hours=gpu_hours,
        dollars=_dollars(training, gpu_hours, device),
        disk_bytes=disk_bytes + 2 * tokens + runs * training.keep_last * checkpoint_bytes(shape),
        egress_bytes=read_bytes,
        egress_dollars=read_bytes / 1e9 * rate_table().egress_dollars_per_gb,
    )


def total(costs: Sequence[CostEstimate], label: str) -> CostEstimate:
    """The sum of several costs; what describes one run (tokens, steps, hours, source) is taken from the first."""

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
) -> tuple[float | None, float, str, bool]:
    """(tokens per second, seconds before the first step, where both come from, whether the speed is another GPU's, scaled).

    (None, 0, why, False) when nothing comparable was measured.
    """
    known = [row for entry in ledger if (row := _throughput_of(entry)) is not None] + list(rate_table().throughput)
    measured = [row for row in known if row.device.lower() == device.lower()]
    if scaled := not measured and peak_flops(device) is not None:
        measured = [row for row in known if row.device == rate_table().default_device]
    if not measured:
        return None, 0.0, f"no measured run on {device!r}: the first one will tell", False

    def distance(row: Throughput) -> tuple[bool, bool, float, bool, bool]:
        """Same precision and engine before same size before same number of GPUs; own runs before the table."""
        return (
            row.precision != training.precision,
            row.engine != training.engine,
            abs(math.log(row.flops_per_token / flops)),
            row.gpus != training.gpus,
            not row.own,
        )

    row = min(measured, key=distance)
    speed = row.tokens_per_second * row.flops_per_token / flops * training.gpus / row.gpus
    carried = [
        f"{name} {was} -> {wanted}"
        for name, was, wanted in (
            ("engine", row.engine, training.engine),
            ("precision", row.precision, training.precision),
            ("depth", row.depth, training.depth),
            ("GPUs", row.gpus, training.gpus),
        )
        if was != wanted
    ]
    note = f"; carried over from {', '.join(carried)}" if carried else ""
    ours, theirs = peak_flops(device), peak_flops(row.device)
    if scaled and ours and theirs:
        speed *= ours / theirs
        note += f"; scaled from {row.device} to {device} by peak FLOP/s"
    return speed, row.start_seconds, row.source + note, scaled


def _throughput_of(entry: LedgerEntry) -> Throughput | None:
    """The speed of a finished run by its ledger entry, or None when it measured none."""
    if entry.state != "completed" or not entry.tokens_per_second or not entry.device:
        return None
    training = entry.experiment.training
    return Throughput(
        device=entry.device,
        gpus=entry.gpus or training.gpus,
        engine=training.engine,
        precision=training.precision,
        depth=training.depth,
        sequence_length=training.sequence_length,
        window_pattern=training.window_pattern,
        vocab_size=entry.experiment.pool.vocab_size,
        tokens_per_second=entry.tokens_per_second,
        source=f"the run {entry.run}",
        own=True,
    )
