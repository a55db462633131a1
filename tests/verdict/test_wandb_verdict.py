"""Verified against the files that W&B keeps offline."""

import json
import sys
import time

from tasks.tracking.report import write_verdict
from tasks.tracking.wandb_verdict import send_verdict, tables
from tasks.verdict.judge import judge


def test_offline_files_hold_the_verdicts_tables(bench, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    verdict = judge(bench.root, "demo", bench.arms(seeds=2, top16=-0.05, rand16=0.0))
    made = write_verdict(bench.root, verdict)
    send_verdict(bench.root, made, verdict, "online")  # without a key it stays offline
    folder = bench.root.path("runs") / ".wandb"
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 20  # its service writes on for a moment after the run has finished
    while made.path.name.encode() not in (content := file.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert made.path.name.encode() in content and verdict["pool"].encode() in content
    stored = {path.name.split("_")[0]: json.loads(path.read_text()) for path in folder.rglob("*.table.json")}
    assert set(stored) == {"arms", "comparisons", "strata"}
    for name, (columns, rows) in tables(verdict).items():
        assert stored[name]["columns"] == columns
        assert len(stored[name]["data"]) == len(rows)
    (pair,) = stored["comparisons"]["data"]
    assert pair[:4] == ["top16", "rand16", "better", "top16"]
    assert pair[-1] == verdict["comparisons"][0]["sentence"]


def test_a_broken_or_disabled_wandb_costs_nothing(bench, monkeypatch, caplog):
    verdict = judge(bench.root, "demo", bench.arms(seeds=1, top16=0.0, rand16=0.0))
    made = write_verdict(bench.root, verdict)
    send_verdict(bench.root, made, verdict, "disabled")
    assert caplog.text == ""
    monkeypatch.setitem(sys.modules, "wandb", None)
    send_verdict(bench.root, made, verdict, "offline")
    assert "W&B is out of order" in caplog.text
    assert not list(bench.root.path("runs").glob(".wandb/wandb/*"))
