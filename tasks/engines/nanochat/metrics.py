"""nanochat's output as `metrics.jsonl`: the lines that the built-in trainer writes, as far as nanochat knows them.

`step` counts finished optimizer steps. Kinds: train (tokens, loss, lr_scale, tokens_per_second, mfu, step_seconds), eval
(bpb, bpb_by_decile), event.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.engines.nanochat.logs import Step, Told, Validation
from tasks.records.layout import METRICS, RunFolder
from tasks.store.artifact import write_atomic
from tasks.store.root import Root


class Metrics:
    """Appends to a metrics file. `batch_tokens`: tokens of one step."""

    def __init__(self, path: Path, batch_tokens: int):
        self._path, self._batch_tokens = path, batch_tokens
        self._deciles: list[float | None] | None = None
        self._step = 0

    def take(self, sign: Step | Validation | Told) -> None:
        """Write what nanochat said, if it belongs here."""
        if isinstance(sign, Step):
            self._step = sign.done
            self.write(
                "train",
                sign.done,
                tokens=sign.done * self._batch_tokens,
                loss=sign.loss,
                lr_scale=sign.lr_scale,
                tokens_per_second=sign.tokens_per_second,
                mfu=sign.mfu,
                step_seconds=sign.seconds,
            )
        elif isinstance(sign, Validation):
            tokens = sign.step * self._batch_tokens
            self.write("eval", sign.step, tokens=tokens, bpb=sign.bpb, bpb_by_decile=self._deciles)
            self._deciles = None
        elif sign.event == "evaluation":
            self._deciles = sign.values.get("bpb_by_decile")
        elif sign.event == "memory" and sign.values["gpu_memory_bytes"]:  # 0 on a CPU
            self.write("event", self._step, event="memory", **sign.values)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; values of None are left out."""
        line = {"step": step, "kind": kind, "time": round(time.time(), 3)}
        line |= {key: value for key, value in values.items() if value is not None}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines, in order; a line torn by a kill is left out, a missing file is empty."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line and "kind" in line:
            lines.append(line)
    return lines


def resume(root: Root, run: str, step: int) -> None:
    """Cut the metrics of a run back to a checkpoint after `step` steps, fetching them from a remote root if need be.

    nanochat evaluates after it saved, so an evaluation at that very step comes again and its line goes.
    """
    path = root.path(RunFolder(run).file(METRICS))
    if not path.is_file() and root.remote is not None:
        content = root.remote.read_if_exists(RunFolder(run).file(METRICS))
        if content is not None:
            write_atomic(path, content)
    kept = [line for line in read(path) if line["step"] < step or (line["step"] == step and line["kind"] != "eval")]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))


def speed(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the training lines, weighted by time (tokens_per_second, mfu), and peak_memory_bytes, where known.

    The first step compiles: it is left out.
    """
    timed = [line for line in lines if line["kind"] == "train" and line.get("step_seconds")][1:]
    seconds = sum(line["step_seconds"] for line in timed)
    if not seconds:
        return {}
    mean = {"tokens_per_second": sum(line["tokens_per_second"] * line["step_seconds"] for line in timed) / seconds}
    if all("mfu" in line for line in timed):
        mean["mfu"] = sum(line["mfu"] * line["step_seconds"] for line in timed) / seconds
    memory = [line["gpu_memory_bytes"] for line in lines if "gpu_memory_bytes" in line]
    return mean | ({"peak_memory_bytes": max(memory)} if memory else {})


def wall_seconds(lines: Iterable[dict[str, Any]]) -> float:
    """Seconds from the start to the last line of each attempt, added up."""
    total, began, last = 0.0, None, 0.0
    for line in lines:
        if line["kind"] == "event" and line.get("event") in ("started", "resumed"):
            total += last - began if began is not None else 0.0
            began = line["time"]
        last = line["time"]
    return total + (last - began if began is not None else 0.0)
