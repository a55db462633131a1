"""Reading `metrics.jsonl`, the trainer's log of one run: one JSON object a line.

A line has `step`, `kind` ("train", "eval" or "event"), `time` (Unix seconds), `tokens` (trained so far) and, where known,
`loss` (nats per token), `bpb` (bits per byte on the holdout), `tokens_per_second`, `mfu`, `gpu_memory_bytes`, ...
"""

import json
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 16


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, in order. A line torn by a kill, or a missing file, is no error."""
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return []


def last_metrics(path: Path) -> dict[str, Any]:
    """The newest value of every key, read from the end of the file alone: {} when there is none.

    `bpb` is thus that of the last evaluation and `loss` that of the last training step.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return {}
    lines = _parse(data.split(b"\n", 1)[-1] if size > TAIL_BYTES else data)
    newest: dict[str, Any] = {}
    for line in lines:
        newest.update({key: value for key, value in line.items() if value is not None})
    return newest


def _parse(data: bytes) -> list[dict[str, Any]]:
    records = []
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
