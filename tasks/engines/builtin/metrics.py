"""`metrics.jsonl`: one JSON object a line, whole lines only, cut back to the checkpoint when a run is resumed.

`step` counts finished optimizer steps. Lines of kind `train`: tokens (trained so far), loss (nats per token), lr_scale,
tokens_per_second, mfu, gpu_memory_bytes, data_wait and step_seconds; `eval`: bpb and bpb_by_decile; `event`: what happened.
"""

import json
import time
from pathlib import Path
from typing import Any

from tasks.records.layout import METRICS, RunFolder
from tasks.store.artifact import write_atomic
from tasks.store.root import Root


class Metrics:
    """Appends to a metrics file; `enabled` is False on all ranks but the first."""

    def __init__(self, path: Path, enabled: bool = True):
        self.path = path
        self._file = path.open("a") if enabled else None

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; values of None are left out."""
        self.write_all([(kind, step, values)])

    def write_all(self, lines: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Append lines in one write, so that a reader sees them together."""
        if self._file is None:
            return
        now = round(time.time(), 3)
        for kind, step, values in lines:
            line = {"step": step, "kind": kind, "time": now}
            line |= {key: value for key, value in values.items() if value is not None}
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines, in order; a line torn by a kill is left out, a missing file is empty."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line and "kind" in line]


def resume(root: Root, run: str, step: int) -> list[dict[str, Any]]:
    """Cut the metrics of a run back to `step` (0: no step yet), fetching them from a remote root if they are not here.

    Returns the lines that stay.
    """
    name = RunFolder(run).file(METRICS)
    path = root.path(name)
    if not path.is_file() and root.remote is not None:
        content = root.remote.read_if_exists(name)
        if content is not None:
            write_atomic(path, content)
    kept = [line for line in read(path) if line["step"] <= step]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept
