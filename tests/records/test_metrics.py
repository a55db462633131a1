"""metrics.jsonl: complete lines, cut back to the checkpoint, fetched where it is missing, and what they say of a run."""

import json

import pytest
from obstore.store import LocalStore

from tasks.errors import DamagedError
from tasks.records.metrics import MetricsLog, cut_back, last_metrics, of_attempts, read_metrics, speed, wall_seconds
from tasks.store.blobs import Blobs
from tasks.store.root import Root
from tasks.store.urls import parse_url


def fill(path, steps):
    metrics = MetricsLog(path)
    for step in steps:
        metrics.write("train", step, loss=1.0 / step, mfu=None)
    metrics.write("eval", steps[-1], bpb=1.5)
    metrics.close()


def places(lines):
    return [(line["step"], line["kind"]) for line in lines]


def test_lines_have_step_kind_time_and_no_unknown_values(tmp_path):
    fill(tmp_path / "m.jsonl", [1])
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert set(first) == {"step", "kind", "time", "loss"}


def test_torn_and_foreign_lines_are_left_out_and_a_missing_file_is_empty(tmp_path):
    fill(tmp_path / "m.jsonl", [1, 2])
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('[1]\n{"loss": 1}\n{"step": 3, "ki')
    assert [line["step"] for line in read_metrics(tmp_path / "m.jsonl")] == [1, 2, 2]
    assert read_metrics(tmp_path / "none") == []


def test_another_format_is_refused_with_the_remedy(tmp_path):
    MetricsLog(tmp_path / "m.jsonl").begin(0, steps=10)
    assert read_metrics(tmp_path / "m.jsonl")[0]["format"] == 1
    MetricsLog(tmp_path / "m.jsonl").write("event", 5, event="resumed", format=2)
    with pytest.raises(DamagedError, match=r"m\.jsonl has metrics format 2, .* reads 1: use the version that wrote it"):
        read_metrics(tmp_path / "m.jsonl")


def test_the_newest_values_are_read_from_the_end_of_a_long_file(tmp_path):
    fill(tmp_path / "m.jsonl", range(1, 3_000))
    assert (tmp_path / "m.jsonl").stat().st_size > 1 << 16
    newest = last_metrics(tmp_path / "m.jsonl")
    assert (newest["step"], newest["loss"], newest["bpb"]) == (2_999, 1 / 2_999, 1.5)
    assert last_metrics(tmp_path / "none") == {}


def test_a_run_is_cut_back_and_appended_to(tmp_path):
    root = Root(tmp_path)
    path = root.path("runs/r/metrics.jsonl")
    path.parent.mkdir(parents=True)
    fill(path, [1, 2, 3, 4])
    assert [line["step"] for line in cut_back(root, "r", 2)] == [1, 2]
    fill(path, [3, 4, 5])
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 5, 5]


def test_an_evaluation_at_the_checkpoint_stays_unless_it_is_made_again(tmp_path):
    root = Root(tmp_path)
    path = root.path("runs/r/metrics.jsonl")
    path.parent.mkdir(parents=True)
    fill(path, [1, 2])
    assert places(cut_back(root, "r", 2)) == [(1, "train"), (2, "train"), (2, "eval")]
    assert places(cut_back(root, "r", 2, evaluated=False)) == [(1, "train"), (2, "train")]


def test_only_the_first_rank_writes(tmp_path):
    MetricsLog(tmp_path / "m.jsonl", enabled=False).write("train", 1, loss=1.0)
    assert not (tmp_path / "m.jsonl").exists()


def test_metrics_are_fetched_from_a_remote_root(tmp_path):
    root = Root(tmp_path / "cache")
    store = tmp_path / "container"
    (store / "runs" / "r").mkdir(parents=True)
    fill(store / "runs" / "r" / "metrics.jsonl", [1, 2, 3])
    root.remote = Blobs(parse_url("az://container"), LocalStore(store))
    assert [line["step"] for line in cut_back(root, "r", 2)] == [1, 2]
    assert [line["step"] for line in read_metrics(root.path("runs/r/metrics.jsonl"))] == [1, 2]


def test_speed_is_the_mean_over_timed_steps_weighted_by_time(tmp_path):
    metrics = MetricsLog(tmp_path / "m.jsonl")
    metrics.write("train", 1, loss=7.0, gpu_memory_bytes=5)  # the first step of an attempt is not timed
    metrics.write("train", 2, tokens_per_second=1_000, step_seconds=1.0, data_wait=0.5, mfu=0.4, gpu_memory_bytes=9)
    metrics.write("train", 3, tokens_per_second=400, step_seconds=3.0, data_wait=0.5, mfu=0.2, gpu_memory_bytes=8)
    assert speed(read_metrics(tmp_path / "m.jsonl")) == {
        "tokens_per_second": pytest.approx(550),
        "data_wait": pytest.approx(0.25),
        "mfu": pytest.approx(0.25),
        "peak_memory_bytes": 9,
    }
    assert speed([]) == {}


def test_seconds_of_all_attempts_are_added_up():
    times = [("started", 100), (None, 110), (None, 130), ("resumed", 1_000), (None, 1_007)]
    lines = [{"kind": "event" if event else "train", "event": event, "time": at} for event, at in times]
    assert wall_seconds(lines) == 37
    assert wall_seconds([]) == 0


@pytest.mark.parametrize(
    ("attempts", "devices"),
    [
        ([], None),
        ([(0, "cpu")], "cpu"),
        ([(0, "A100"), (5, "A100")], "A100"),
        ([(0, "A100"), (5, "H100"), (9, "A100")], "A100, then H100"),
        ([(0, "cpu"), (0, "H100")], "H100"),  # of the first attempt no step is left
        ([(0, None), (5, "H100")], "H100"),  # by a release that did not say it
    ],
)
def test_a_run_names_every_device_that_trained_a_part_of_it(tmp_path, attempts, devices):
    for step, device in attempts:
        metrics = MetricsLog(tmp_path / "m.jsonl")
        metrics.begin(step, device=device)
        metrics.close()
    assert of_attempts(read_metrics(tmp_path / "m.jsonl"), "device") == devices
