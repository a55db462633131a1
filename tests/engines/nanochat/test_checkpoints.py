"""Which of nanochat's checkpoints count, where they are mirrored, and what metrics say of a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.engines.nanochat import checkpoints, metrics, overlay
from tasks.engines.nanochat.checkpoints import Keeper, folder_of, resume_step, stale, whole_steps
from tasks.engines.nanochat.environment import Gpu
from tasks.engines.nanochat.locks import hold
from tasks.engines.nanochat.logs import Step, Told, Validation
from tasks.engines.nanochat.metrics import Metrics, read, speed, wall_seconds
from tasks.errors import BusyError, InputError
from tasks.store.blobs import open_blobs
from tasks.store.root import Root

RUN = "top16-d2-s1-0123456789"


def save(folder: Path, step: int) -> None:
    """A checkpoint as the overlay writes it."""
    overlay.save_checkpoint(str(folder), step, {"w": torch.ones(8)}, {"m": torch.zeros(8)}, {"step": step})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = folder_of(Root(tmp_path / "root"), RUN)
    for step in (250, 500, 750):
        save(folder, step)
    return folder


def truncated(folder: Path) -> None:
    path = folder / "model_000750.pt"
    path.write_bytes(path.read_bytes()[:-1])


def without_optimizer(folder: Path) -> None:
    (folder / "optim_000750_rank0.pt").unlink()


def without_metadata(folder: Path) -> None:
    (folder / "meta_000750.json").unlink()


def torn_metadata(folder: Path) -> None:
    (folder / "meta_000750.json").write_text('{"step": 750, "fabrating": {"ranks"')


def of_plain_upstream(folder: Path) -> None:
    (folder / "meta_000750.json").write_text('{"step": 750}')


def hostile(folder: Path) -> None:
    marker = {"ranks": 1, "files": {"../../../../job.json": 2}}
    (folder / "meta_000750.json").write_text(json.dumps({"fabrating": marker}))


@pytest.mark.parametrize(
    "damage", [truncated, without_optimizer, without_metadata, torn_metadata, of_plain_upstream, hostile]
)
def test_what_is_not_whole_is_passed_over(folder: Path, tmp_path: Path, damage) -> None:
    assert whole_steps(folder) == [250, 500, 750]
    damage(folder)
    assert whole_steps(folder) == [250, 500]
    assert resume_step(Root(tmp_path / "root"), RUN, 1) == 500


def test_another_number_of_gpus_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gpus is 2, but .* started on 1"):
        resume_step(Root(tmp_path / "root"), RUN, 2)


def test_a_new_run_starts_at_the_beginning(tmp_path: Path) -> None:
    assert resume_step(Root(tmp_path), RUN, 1) == 0


def test_what_is_kept() -> None:
    assert stale([100, 200, 300, 400, 500], 2, None) == [100, 200, 300]
    assert stale([100, 200, 300, 400, 500], 2, 200) == [100, 300]
    assert stale([100], 3, None) == []


def with_remote(tmp_path: Path, name: str) -> Root:
    """A root whose remote store is a folder beside it."""
    (tmp_path / "remote").mkdir(exist_ok=True)
    root = Root(tmp_path / name)
    root.remote = open_blobs((tmp_path / "remote").as_uri())
    return root


def test_checkpoints_are_mirrored_dropped_and_fetched_on_another_machine(tmp_path: Path) -> None:
    here = with_remote(tmp_path, "here")
    here.path(f"runs/{RUN}").mkdir(parents=True)
    here.path(f"runs/{RUN}/metrics.jsonl").write_text('{"step": 0, "kind": "event"}\n')
    keeper = Keeper(here, RUN, keep_last=1, keep_every=500)
    for step in (250, 500, 750):
        save(folder_of(here, RUN), step)
        keeper.saved(step)
    keeper.close()
    assert whole_steps(folder_of(here, RUN)) == [500, 750]
    there = with_remote(tmp_path, "there")
    assert resume_step(there, RUN, 1) == 750
    mirrored = {blob.name.rsplit("/", 1)[-1] for blob in here.remote.list(f"runs/{RUN}")}
    assert mirrored == {"metrics.jsonl", *(path.name for path in folder_of(here, RUN).iterdir())}
    for path in folder_of(there, RUN).iterdir():
        assert path.read_bytes() == (folder_of(here, RUN) / path.name).read_bytes()


def test_a_store_that_is_away_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = with_remote(tmp_path, "here")
    (tmp_path / "remote").rmdir()
    (tmp_path / "remote").write_text("no folder")
    keeper = Keeper(root, RUN, keep_last=1, keep_every=None)
    for step in (250, 500):
        save(folder_of(root, RUN), step)
        keeper.saved(step)
    keeper.close()
    assert whole_steps(folder_of(root, RUN)) == [250, 500]
    assert "not mirrored" in caplog.text


def test_metrics_are_those_of_the_built_in_trainer(tmp_path: Path) -> None:
    written = Metrics(tmp_path / "metrics.jsonl", batch_tokens=1_000)
    written.write("event", 0, event="started")
    deciles = [1.0, None, *[0.5] * 8]
    signs = [
        Told("evaluation", {"bpb": 0.9, "bpb_by_decile": deciles}),
        Validation(0, 0.9),
        Step(1, 10, 7.0, 0.1, 60.0, 16, 0.1),
        Step(2, 10, 6.0, 0.2, 1.0, 1_000, 0.4),
        Step(3, 10, 5.0, 0.3, 3.0, 333, 0.2),
        Validation(3, 0.8),
        Told("memory", {"gpu_memory_bytes": 77 * 2**30}),
    ]
    for sign in signs:
        written.take(sign)
    event, first, one, _, three, last, memory = read(tmp_path / "metrics.jsonl")
    assert event["kind"] == "event"
    assert (first["kind"], first["bpb"], first["bpb_by_decile"], first["tokens"]) == ("eval", 0.9, deciles, 0)
    assert (one["step"], one["tokens"], one["loss"], one["lr_scale"]) == (1, 1_000, 7.0, 0.1)
    assert three["step_seconds"] == 3.0 and three["mfu"] == 0.2
    assert last["bpb"] == 0.8 and "bpb_by_decile" not in last
    assert (memory["step"], memory["gpu_memory_bytes"]) == (3, 77 * 2**30)
    mean = speed(read(tmp_path / "metrics.jsonl"))
    assert mean.pop("peak_memory_bytes") == 77 * 2**30
    assert mean == {"tokens_per_second": pytest.approx(1_999 / 4), "mfu": pytest.approx(0.25)}


def test_a_resumed_run_repeats_the_evaluation_after_its_checkpoint(tmp_path: Path) -> None:
    root = with_remote(tmp_path, "here")
    path = root.path(f"runs/{RUN}/metrics.jsonl")
    path.parent.mkdir(parents=True)
    lines = [(0, "eval"), (1, "train"), (2, "train"), (2, "eval"), (3, "train")]
    text = "".join(json.dumps({"step": step, "kind": kind}) + "\n" for step, kind in lines) + '{"step": 4, "ki'
    (tmp_path / "remote" / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "remote" / "runs" / RUN / "metrics.jsonl").write_text(text)
    metrics.resume(root, RUN, 2)
    assert [(line["step"], line["kind"]) for line in read(path)] == [(0, "eval"), (1, "train"), (2, "train")]


def test_seconds_of_all_attempts_are_added_up() -> None:
    times = [("started", 100), (None, 110), (None, 130), ("resumed", 1_000), (None, 1_007)]
    lines = [{"kind": "event" if event else "train", "event": event, "time": at} for event, at in times]
    assert wall_seconds(lines) == 37
    assert wall_seconds([]) == 0


def test_a_run_and_a_gpu_have_one_holder_until_its_last_process_is_gone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tasks.store.locks.GPU_LOCKS", tmp_path / "locks")
    gpu = Gpu("NVIDIA H100", 1, "0123", (9, 0))
    with hold(tmp_path / "run", RUN, [gpu]) as descriptors:
        rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=descriptors)
        with pytest.raises(BusyError, match=f"run {RUN}"), hold(tmp_path / "run", RUN, [], patience=0):
            pass
        with pytest.raises(BusyError, match="GPU NVIDIA H100"), hold(tmp_path / "other", "other", [gpu], patience=0):
            pass
    with pytest.raises(BusyError), hold(tmp_path / "run", RUN, [], patience=0):
        pass
    rank.kill()
    rank.wait()
    with hold(tmp_path / "run", RUN, [gpu], patience=0) as descriptors:
        assert len(descriptors) == 2


def test_the_base_directory_lies_in_the_run(tmp_path: Path) -> None:
    assert checkpoints.base_name(RUN) == f"runs/{RUN}/nanochat"
    assert folder_of(Root(tmp_path), RUN) == tmp_path / "runs" / RUN / "nanochat" / "base_checkpoints" / RUN
