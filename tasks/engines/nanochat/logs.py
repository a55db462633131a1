"""What a line of nanochat's output means, its own and the overlay's JSON lines, and the metrics that it becomes.

Any text may come (warnings, tracebacks, half a line after a kill): what is neither is ignored, never an error.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.records.metrics import MetricsLog

_NUMBER = r"([-+0-9.eE]+|nan|-?inf)"
_STEP = re.compile(
    rf"step (\d+)/(\d+) \({_NUMBER}%\) \| loss: {_NUMBER} \| lrm: {_NUMBER} \| dt: {_NUMBER}ms"
    rf" \| tok/sec: ([\d,]+) \| (?:bf16_)?mfu: {_NUMBER}(?: \||$)"
)
_VALIDATION = re.compile(rf"Step (\d+) \| Validation bpb: {_NUMBER}\s*$")
_MEMORY = re.compile(rf"Peak memory usage: {_NUMBER}MiB$")
_TOLD = "fabrating: "
LONGEST = 10_000
"""Characters of a line that is looked at."""


@dataclass(frozen=True)
class Step:
    """One optimizer step. `done`: steps finished with it; `loss`: nats per token, smoothed by nanochat."""

    done: int
    total: int
    loss: float
    lr_scale: float
    seconds: float
    tokens_per_second: int
    mfu: float | None


@dataclass(frozen=True)
class Validation:
    """nanochat's line after an evaluation: bits per byte after `step` finished steps."""

    step: int
    bpb: float


@dataclass(frozen=True)
class Told:
    """An event of the overlay, such as saving, saved, evaluating, evaluation; and `memory`, at nanochat's end."""

    event: str
    values: Mapping[str, Any]


def parse(line: str) -> Step | Validation | Told | None:
    """The meaning of one line, or None."""
    if len(line) > LONGEST:
        return None
    line = line.rstrip()
    if line.startswith(_TOLD):
        return _told(line.removeprefix(_TOLD))
    try:
        if match := _STEP.match(line):
            return _step(*match.groups())
        if match := _VALIDATION.match(line):
            return Validation(int(match[1]), float(match[2]))
        if match := _MEMORY.match(line):
            return Told("memory", {"gpu_memory_bytes": round(float(match[1]) * 2**20)})
    except (ValueError, OverflowError):  # digits that are no number after all, such as 1.2.3
        return None
    return None


def _step(index: str, total: str, _: str, loss: str, lrm: str, milliseconds: str, rate: str, mfu: str) -> Step:
    percent = float(mfu)
    known = math.isfinite(percent) and percent > 0  # nanochat prints 0.00 where it does not know the GPU
    return Step(
        done=int(index) + 1,
        total=int(total),
        loss=float(loss),
        lr_scale=float(lrm),
        seconds=round(float(milliseconds) / 1_000, 6),
        tokens_per_second=int(rate.replace(",", "")),
        mfu=percent / 100 if known else None,
    )


def _told(text: str) -> Told | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("event"), str):
        return None
    return Told(values.pop("event"), values)


class Recorder:
    """Writes what nanochat says as metrics, as far as it says what the built-in trainer does. `batch_tokens`: of one step."""

    def __init__(self, metrics: MetricsLog, batch_tokens: int):
        self._metrics, self._batch_tokens = metrics, batch_tokens
        self._deciles: list[float | None] | None = None
        self._step: int | None = None

    def take(self, sign: Step | Validation | Told) -> None:
        """Write a sign, if it belongs in the metrics."""
        if isinstance(sign, Step):
            timed = self._step is not None  # the first step of an attempt compiles
            self._step = sign.done
            self._metrics.write(
                "train",
                sign.done,
                tokens=sign.done * self._batch_tokens,
                loss=sign.loss,
                lr_scale=sign.lr_scale,
                tokens_per_second=sign.tokens_per_second if timed else None,
                mfu=sign.mfu if timed else None,
                step_seconds=sign.seconds if timed else None,
            )
        elif isinstance(sign, Validation):
            tokens = sign.step * self._batch_tokens
            self._metrics.write("eval", sign.step, tokens=tokens, bpb=sign.bpb, bpb_by_decile=self._deciles)
            self._deciles = None
        elif sign.event == "evaluation":
            self._deciles = sign.values.get("bpb_by_decile")
        elif sign.event == "memory" and sign.values["gpu_memory_bytes"]:  # 0 on a CPU
            self._metrics.write("event", self._step or 0, event="memory", **sign.values)
