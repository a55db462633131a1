"""A run that moves between hosts over a common root."""

from pathlib import Path

import pytest
import torch

from tasks.engines.builtin import checkpoint
from tasks.records.metrics import MetricsLog, cut_back, read_metrics
from tasks.store.access import open_blobs
from tasks.store.root import Root

INPUTS = {"packed": "x"}


def attempt(store: Path, host: Path, steps: list[int]) -> tuple[int, list[int]]:
    """Go on from the newest checkpoint, evaluate and save at some steps: (where it began, steps in the metrics)."""
    root = Root(host)
    root.remote = open_blobs(store.as_uri())
    path = root.path("runs/r/metrics.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    found = checkpoint.find(root, "r", INPUTS)
    start = found.step if found else 0
    cut_back(root, "r", start)
    lines = MetricsLog(path)
    saved = checkpoint.Checkpoints(root, "r", INPUTS, host.name, mirrored=(path,), last=start or None)
    for step in steps:
        lines.write("eval", step, bpb=1.5)
        saved.save({"w": torch.zeros(4)}, {"optimizer": {"m": torch.zeros(1)}}, {"step": step, "rows": step})
    saved.close()
    lines.close()
    return start, [line["step"] for line in read_metrics(path)]


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Two hosts on one root, strangers at the door: back on a host, a run keeps its old metrics there and loses what another measured",
)
def test_a_run_that_comes_back_to_a_host_has_every_evaluation(tmp_path: Path) -> None:
    store, here, there = (tmp_path / name for name in ("store", "here", "there"))
    store.mkdir()
    attempt(store, here, [250])
    assert attempt(store, there, [500]) == (250, [250, 500])
    assert attempt(store, here, [750]) == (500, [250, 500, 750])
