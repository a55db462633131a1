"""metrics.jsonl: whole lines, cut back to the checkpoint, fetched where it is missing."""

import json

from obstore.store import LocalStore

from tasks.engines.builtin.metrics import Metrics, read, resume
from tasks.store.blobs import Blobs
from tasks.store.root import Root


def fill(path, steps):
    metrics = Metrics(path)
    for step in steps:
        metrics.write("train", step, loss=1.0 / step, mfu=None)
    metrics.write("eval", steps[-1], bpb=1.5)
    metrics.close()


def test_lines_have_step_kind_time_and_no_unknown_values(tmp_path):
    fill(tmp_path / "m.jsonl", [1])
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert set(first) == {"step", "kind", "time", "loss"}


def test_a_torn_last_line_is_left_out(tmp_path):
    fill(tmp_path / "m.jsonl", [1, 2])
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"step": 3, "ki')
    assert [line["step"] for line in read(tmp_path / "m.jsonl")] == [1, 2, 2]


def test_resume_cuts_back_and_appends(tmp_path):
    root = Root(tmp_path)
    path = root.path("runs/r/metrics.jsonl")
    path.parent.mkdir(parents=True)
    fill(path, [1, 2, 3, 4])
    assert [line["step"] for line in resume(root, "r", 2)] == [1, 2]
    fill(path, [3, 4, 5])
    assert [line["step"] for line in read(path)] == [1, 2, 3, 4, 5, 5]


def test_only_the_first_rank_writes(tmp_path):
    Metrics(tmp_path / "m.jsonl", enabled=False).write("train", 1, loss=1.0)
    assert not (tmp_path / "m.jsonl").exists()


def test_metrics_are_fetched_from_a_remote_root(tmp_path):
    root = Root(tmp_path / "cache")
    store = tmp_path / "container"
    (store / "runs" / "r").mkdir(parents=True)
    fill(store / "runs" / "r" / "metrics.jsonl", [1, 2, 3])
    root.remote = Blobs("az://container", LocalStore(store))
    assert [line["step"] for line in resume(root, "r", 2)] == [1, 2]
    assert [line["step"] for line in read(root.path("runs/r/metrics.jsonl"))] == [1, 2]
