"""Verified against the files that W&B keeps offline."""

import json
import sys

import numpy as np
import pytest

from tasks.reports.report import write_verdict
from tasks.reports.wandb_verdict import send_verdict, tables
from tasks.verdict.judge import judge
from tests.waiting import within


def test_offline_files_hold_the_verdicts_tables(bench, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    for arm, seed in (("top16", 1), ("top16", 2), ("rand16", 1), ("rand16", 2)):
        bench.run(arm, seed, -0.2 * (arm == "top16"), name="outside/wiki")
    bench.near("top16", [3, 4])
    bench.near("rand16", [])
    accuracies = [bench.core(runs, i) for i, runs in enumerate(arms.values())]
    verdict = judge(bench.root, "demo", arms, outside=["wiki"], core=True)
    made = write_verdict(bench.root, verdict)
    send_verdict(bench.root, made, verdict, "online")  # without a key it stays offline
    folder = bench.root.path("runs") / ".wandb"
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    # its service writes on for a moment after the run has finished
    assert within(20, lambda: made.path.name.encode() in file.read_bytes())
    assert verdict.pool.encode() in file.read_bytes()
    stored = {path.name.split("_")[0]: json.loads(path.read_text()) for path in folder.rglob("*.table.json")}
    assert set(stored) == {"arms", "comparisons", "strata", "outside", "core", "leaks"}
    for name, (columns, rows) in tables(verdict).items():
        assert stored[name]["columns"] == columns
        assert stored[name]["data"] == rows
    (pair,) = stored["comparisons"]["data"]
    assert pair[:4] == ["top16", "rand16", "better", "top16"]
    assert pair[-1] == verdict.comparisons[0].sentence
    assert [row[:2] + row[4:6] for row in stored["leaks"]["data"]] == [
        ["top16", "holdout", 2, 2],
        ["rand16", "holdout", 0, 0],
    ]
    (wiki,) = stored["outside"]["data"]
    assert wiki[:3] == ["top16", "rand16", "wiki"] and wiki[3] == pytest.approx(-0.2, abs=0.01)
    assert [row[2] for row in stored["core"]["data"]] == ["CORE", "arc", "squad"]
    means = np.transpose([row[3:5] for row in stored["core"]["data"]])
    assert means == pytest.approx(np.array([values.mean(0) for values in accuracies]))


def test_a_verdict_on_the_holdout_alone_has_no_empty_tables(bench):
    verdict = judge(bench.root, "demo", bench.arms(seeds=1, top16=0.0, rand16=0.0))
    assert set(tables(verdict)) == {"arms", "comparisons", "strata"}


def test_a_broken_or_disabled_wandb_costs_nothing(bench, monkeypatch, caplog):
    verdict = judge(bench.root, "demo", bench.arms(seeds=1, top16=0.0, rand16=0.0))
    made = write_verdict(bench.root, verdict)
    send_verdict(bench.root, made, verdict, "disabled")
    assert caplog.text == ""
    monkeypatch.setitem(sys.modules, "wandb", None)
    send_verdict(bench.root, made, verdict, "offline")
    assert "W&B is out of order" in caplog.text
    assert not list(bench.root.path("runs").glob(".wandb/wandb/*"))
