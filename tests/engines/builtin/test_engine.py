"""A run from outside: followed, reused, and its ends told apart."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tasks.engines.builtin.distributed import asked_threads
from tasks.engines.entry import score, train
from tasks.errors import DiskError, InputError, InterruptedRun, LostProcessError
from tasks.records.job import Job
from tasks.records.metrics import read_metrics
from tasks.store.root import Root
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment


def test_train_reports_progress_and_reuses_a_result_and_scores_again(root, monkeypatch):
    """In a shell that has the ranks and threads of somebody's own job."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "192.0.2.1", "OMP_NUM_THREADS": "2,1"}.items():
        monkeypatch.setenv(name, value)
    told = []
    experiment = make_experiment(eval_every=5)
    result = train(root, experiment, POOL, ARM, lambda *what: told.append(what))
    assert told[-1][:3] == ("train", 15, 15)
    assert told[-1][3]["bpb"] == result.facts["bpb"]
    assert not result.reused
    before = result.path.stat().st_mtime_ns
    again = train(root, experiment, POOL, ARM)
    assert again.reused
    assert again.path.stat().st_mtime_ns == before
    run = Job.of(root, experiment, POOL, ARM).run
    assert score(root, run).facts["bpb"] == pytest.approx(result.facts["bpb"], rel=1e-6)
    evaluated = {
        line["step"]: line["bpb"] for line in read_metrics(root.path(f"runs/{run}/metrics.jsonl")) if "bpb" in line
    }
    assert score(root, run, checkpoint=12).facts["steps"] == 12
    assert set(evaluated) == {5, 10, 15}
    with pytest.raises(InputError, match="no checkpoint of step 99"):
        score(root, run, checkpoint=99)


@pytest.mark.parametrize(("given", "threads"), [("2,1", 2), ("3", 3), ("", 0), ("0", 0), ("all", 0), ("-1", 0)])
def test_threads_that_are_asked_for(monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert asked_threads() == threads


def test_a_full_disk_at_a_checkpoint_is_one_sentence(root, tmp_path):
    """A file system of its own, too small for the second checkpoint."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1400k", "tmpfs", str(small)]).returncode:
        pytest.skip("only root may mount a file system")
    try:
        for name in ("pools", "arms"):
            (small / name).symlink_to(root.folder / name)
        with pytest.raises(DiskError, match=r"^[^\n]*: free (space|some) there and[^\n]*$"):
            train(Root(small), make_experiment(save_every=2), POOL, ARM)
        (log,) = small.glob("runs/*/log.txt")
        assert "Traceback" not in log.read_text()
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert train(Root(small), make_experiment(save_every=2), POOL, ARM).facts["steps"] == 15
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_scoring_a_run_that_is_not_there(root):
    with pytest.raises(InputError, match="There is no run nobody"):
        score(root, "nobody")


def interrupt_when_it_runs(root, run, number):
    """Send a signal to the trainer of a run once it has made a step."""

    def work():
        lock, path = root.path(f"runs/{run}/.lock"), root.path(f"runs/{run}/metrics.jsonl")
        while not any(line["kind"] == "train" for line in read_metrics(path)):
            time.sleep(0.005)
        os.kill(json.loads(lock.read_text())["pid"], number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, InterruptedRun), (signal.SIGKILL, LostProcessError)])
def test_a_stopped_and_a_killed_trainer_are_told_apart(root, number, error):
    experiment = make_experiment(batch_tokens=LENGTH)
    run = Job.of(root, experiment, POOL, ARM).run
    interrupt_when_it_runs(root, run, number)
    with pytest.raises(error, match=run):
        train(root, experiment, POOL, ARM)


def test_a_refusal_comes_through_as_one_sentence(root):
    with pytest.raises(InputError, match=r"^precision=bf16 needs a GPU"):
        train(root, make_experiment(precision="bf16"), POOL, ARM)
    with pytest.raises(InputError, match="no complete artifact arms/none/packed/32-split"):
        train(root, make_experiment(), POOL, "none")


def test_a_flipped_byte_of_the_packed_rows_is_refused_by_name(root, prepared):
    (root.folder / "arms").unlink()
    shutil.copytree(prepared / "arms", root.folder / "arms")
    rows = root.path(f"arms/{ARM}/packed/{LENGTH}-split") / "rows.bin"
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 1
    rows.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.bin has another SHA-256 than its manifest says"):
        train(root, make_experiment(), POOL, ARM)
    assert root.names("runs") == []
