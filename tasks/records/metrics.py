"""`metrics.jsonl`, the log of one training run: one JSON object per line, in the order of training.

Both engines write it through `MetricsLog`; everything else reads it through `read_metrics` and `last_metrics`.
"""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, cast

from tasks.errors import DamagedError
from tasks.records.layout import METRICS, RunFolder
from tasks.store.artifact import write_atomic
from tasks.store.root import Root

FORMAT = 1
"""Stands in the first line of every attempt. Lines without it are of format 1."""
TAIL_BYTES = 1 << 16
Kind = Literal["train", "eval", "event"]


class MetricsLine(TypedDict, total=False):
    """One line. `step` counts finished optimizer steps; what is unknown is left out."""

    step: Required[int]
    kind: Required[Kind]
    time: float
    """Unix seconds."""
    tokens: int
    """Trained so far."""
    loss: float
    """train: nats per token, mean over the batch."""
    lr_scale: float
    tokens_per_second: float
    """Absent, like `step_seconds`, for the first step of an attempt, which compiles."""
    step_seconds: float
    data_wait: float
    """Seconds of a step in which the device waited for rows."""
    mfu: float
    """Part of the device's peak FLOPs, 0 to 1."""
    gpu_memory_bytes: int
    """Peak so far."""
    bpb: float
    """eval: bits per byte on the holdout."""
    bpb_by_decile: list[float | None]
    """eval: the same by score decile, lowest first."""
    event: str
    """event: started, resumed, first_step, checkpoint, interrupted, memory, finished; with what belongs to it."""
    format: int
    steps: int
    """started, resumed: steps of the whole run."""


class Speed(TypedDict, total=False):
    """Means over a run, weighted by time, and its peak of memory."""

    tokens_per_second: float
    data_wait: float
    """Part of a step."""
    mfu: float
    peak_memory_bytes: int


class MetricsLog:
    """Appends to a metrics file; `enabled` is False on all ranks but the first."""

    def __init__(self, path: Path, enabled: bool = True):
        self._file = path.open("a") if enabled else None

    def write(self, kind: Kind, step: int, **values: Any) -> None:
        """Append one line; values of None are left out."""
        self.write_all([(kind, step, values)])

    def write_all(self, lines: Sequence[tuple[Kind, int, dict[str, Any]]]) -> None:
        """Append lines in one write, so that a reader sees them together."""
        if self._file is None:
            return
        now = round(time.time(), 3)
        for kind, step, values in lines:
            line = {"step": step, "kind": kind, "time": now}
            line |= {key: value for key, value in values.items() if value is not None}
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def begin(self, step: int, **about: Any) -> None:
        """The first line of an attempt, which starts after `step` steps: what it computes, and on what."""
        self.write("event", step, event="resumed" if step else "started", format=FORMAT, **about)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[MetricsLine]:
    """All complete lines, in order; a line torn by a kill is left out, a missing file is empty.

    Raises DamagedError when a newer version of FabRating wrote the file.
    """
    try:
        return _parse(path.read_bytes(), path)
    except FileNotFoundError:
        return []


def last_metrics(path: Path) -> MetricsLine | dict[str, Any]:
    """The newest value of every key, read from the first line and the end of the file alone: {} when there is none.

    `bpb` is thus that of the last evaluation, `loss` that of the last training step, and `steps` what the first attempt planned.
    """
    try:
        with path.open("rb") as file:
            first = file.readline(TAIL_BYTES)
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return {}
    return _newest(_parse(first + data.split(b"\n", 1)[-1] if size > TAIL_BYTES else data, path))


def mirrored_metrics(root: Root, run: str) -> MetricsLine | dict[str, Any]:
    """The same from the copy in the remote root, which other hosts update with each checkpoint."""
    name = RunFolder(run).file(METRICS)
    content = root.remote.read_if_exists(name) if root.remote is not None else None
    return _newest(_parse(content or b"", root.path(name)))


def cut_back(root: Root, run: str, step: int, *, evaluated: bool = True) -> list[MetricsLine]:
    """Cut a run's metrics back to a checkpoint after `step` steps (0: none).

    Of the local and the remote copy, the one that reaches the checkpoint counts: where other hosts trained in between, the local
    one ends before it. `evaluated`: whether an evaluation at `step` itself stays; an engine that saves
    first evaluates there again. Returns the lines that stay.
    """
    name = RunFolder(run).file(METRICS)
    path = root.path(name)
    copies = [read_metrics(path)]
    if root.remote is not None and (content := root.remote.read_if_exists(name)) is not None:
        copies.append(_parse(content, path))
    last = {"eval": step if evaluated else step - 1}
    cut = [[line for line in copy if line["step"] <= last.get(line["kind"], step)] for copy in copies]
    kept = max(cut, key=lambda lines: (max((line["step"] for line in lines), default=0), len(lines)))
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def speed(lines: Sequence[MetricsLine]) -> Speed:
    """What the training lines say of a run's speed: {} when none was timed."""
    timed = [line for line in lines if line["kind"] == "train" and line.get("step_seconds")]
    seconds = sum(line["step_seconds"] for line in timed)
    mean = Speed()
    if timed:
        mean["tokens_per_second"] = sum(line["tokens_per_second"] * line["step_seconds"] for line in timed) / seconds
    if timed and all("data_wait" in line for line in timed):
        mean["data_wait"] = sum(line["data_wait"] for line in timed) / seconds
    if timed and all("mfu" in line for line in timed):
        mean["mfu"] = sum(line["mfu"] * line["step_seconds"] for line in timed) / seconds
    if memory := [line["gpu_memory_bytes"] for line in lines if "gpu_memory_bytes" in line]:
        mean["peak_memory_bytes"] = max(memory)
    return mean


def wall_seconds(lines: Sequence[MetricsLine]) -> float:
    """Seconds from the first to the last line of each attempt, added up."""
    total, began, last = 0.0, None, 0.0
    for line in lines:
        if line["kind"] == "event" and line.get("event") in ("started", "resumed"):
            total += last - began if began is not None else 0.0
            began = line["time"]
        last = line["time"]
    return total + (last - began if began is not None else 0.0)


THEN = ", then "
"""Between what the attempts at a run say."""


def of_attempts(lines: Sequence[MetricsLine], name: str) -> str | None:
    """What the attempts that trained a run say of `name`, such as its device: "NVIDIA A100, then NVIDIA H100"; None if nothing.

    An attempt of which no step is left, because the next one started where it did, does not count.
    """
    starts = [line for line in lines if line["kind"] == "event" and line.get("event") in ("started", "resumed")]
    trained = [a for a, b in pairwise(starts) if b["step"] > a["step"]] + starts[-1:]
    return THEN.join(dict.fromkeys(str(line.get(name)) for line in trained if name in line)) or None


def _newest(lines: Sequence[MetricsLine]) -> dict[str, Any]:
    newest: dict[str, Any] = {}
    for line in lines:
        newest.update({key: value for key, value in line.items() if value is not None})
    return newest


def _parse(data: bytes, path: Path) -> list[MetricsLine]:
    lines: list[MetricsLine] = []
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if not (isinstance(line, dict) and "step" in line and "kind" in line):
            continue
        if line.get("format", FORMAT) != FORMAT:
            raise DamagedError(
                f"{path} has metrics format {line['format']!r}, this version of FabRating reads {FORMAT}: use the version "
                f"that wrote it, or move the run's folder away and train again."
            )
        lines.append(cast("MetricsLine", line))
    return lines
