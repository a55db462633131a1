"""A run from outside: followed, reused, and its ends told apart. And the launcher under it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tasks.engines import ranks as launcher
from tasks.engines.builtin.metrics import read
from tasks.engines.builtin.run import score, train
from tasks.engines.ranks import StopRequest, launch
from tasks.errors import InputError, InterruptedRun, LostProcessError
from tasks.records.job import Job
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment

PYTHON = [sys.executable, "-c"]


def test_train_reports_progress_and_reuses_a_result_and_scores_again(root):
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
    evaluated = {line["step"]: line["bpb"] for line in read(root.path(f"runs/{run}/metrics.jsonl")) if "bpb" in line}
    assert score(root, run, checkpoint=12).facts["steps"] == 12
    assert set(evaluated) == {5, 10, 15}
    with pytest.raises(InputError, match="no checkpoint of step 99"):
        score(root, run, checkpoint=99)


def test_scoring_a_run_that_is_not_there(root):
    with pytest.raises(InputError, match="There is no run nobody"):
        score(root, "nobody")


def interrupt_when_it_runs(root, run, number):
    """Send a signal to the trainer of a run once it has made a step."""

    def work():
        lock, path = root.path(f"runs/{run}/.lock"), root.path(f"runs/{run}/metrics.jsonl")
        while not any(line["kind"] == "train" for line in read(path)):
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


def test_ranks_know_who_they_are(tmp_path):
    log = tmp_path / "log.txt"
    code = "import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'], flush=True)"
    assert launch([*PYTHON, code], 3, log=log) == 0
    assert sorted(log.read_text().splitlines()) == ["0 3 0", "1 3 1", "2 3 2"]


def test_a_failed_rank_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "ORPHAN_GRACE", 1.0)
    code = "import os, sys, time; sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(100)"
    began = time.monotonic()
    assert launch([*PYTHON, code], 2, log=tmp_path / "log.txt") == 7
    assert time.monotonic() - began < 40


def test_a_rank_that_stops_later_than_the_others_is_waited_for(tmp_path, monkeypatch):
    """Rank 0 publishes the checkpoint after the others have written their part and gone."""
    monkeypatch.setattr(launcher, "ORPHAN_GRACE", 0.1)
    code = (
        "import os, sys, time, signal; signal.signal(15, lambda *_: None); time.sleep(2 * (os.environ['RANK'] == '0')); "
        "print('saved' if os.environ['RANK'] == '0' else 'gone', flush=True); sys.exit(75)"
    )
    assert launch([*PYTHON, code], 2, log=tmp_path / "log.txt") == 75
    assert (tmp_path / "log.txt").read_text().split() == ["gone", "saved"]


def test_a_request_to_stop_reaches_the_ranks(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(100)"
    )
    stop, log = StopRequest(), tmp_path / "log.txt"

    def poll():
        if log.read_text().count("up") == 2:
            stop.set()

    assert launch([*PYTHON, code], 2, log=log, poll=poll, stop=stop.asked) == 75


LAUNCHED = """
import signal, sys, time
from tasks.engines.ranks import StopRequest, die_with_launcher
stop = StopRequest()
stop.listen()
assert die_with_launcher()
print("up", flush=True)
for _ in range(3000):
    if stop.asked():
        print("stopped", flush=True)
        break
    time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux only")
def test_a_killed_launcher_stops_its_ranks(tmp_path):
    log = tmp_path / "log.txt"
    code = (
        "import sys; from pathlib import Path; from tasks.engines.ranks import launch; "
        f"launch([sys.executable, '-c', {LAUNCHED!r}], 1, log=Path({str(log)!r}))"
    )
    parent = subprocess.Popen([*PYTHON, code])
    deadline = time.monotonic() + 60
    while not (log.is_file() and "up" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while "stopped" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
