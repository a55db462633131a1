"""Runs that several GPUs share: all are done, one that fails stops none, and whoever stops the work stops all of it, with its processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from infra.local.deploy import PROJECT
from tasks.engines import shared
from tasks.engines.shared import Scoring, share
from tasks.errors import DiskError, InputError, LostProcessError, TrainingError
from tasks.spec import Training
from tasks.store.root import Root

GPUS = ["GPU-a", "GPU-b"]


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(shared, "visible_gpus", lambda: GPUS)


@pytest.mark.parametrize(
    ("training", "at_once"),
    [(Training(), 3), (Training(gpus=2), 1), (Training(device="cpu"), 1)],
)
def test_so_many_runs_are_at_work_as_there_are_gpus_for_and_one_that_loads(two_gpus, training, at_once):
    assert shared.turns_at_once(training) == at_once


def test_without_a_gpu_runs_take_turns(monkeypatch):
    monkeypatch.setattr(shared, "visible_gpus", list)
    assert shared.turns_at_once(Training()) == 1


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_all_is_done_in_order_and_what_fails_is_returned(at_once):
    begun, lock = [], threading.Lock()

    def work(number, stop):
        with lock:
            begun.append(number)
        if number == 2:
            raise TrainingError("the second")

    failed = share(work, range(1, 6), at_once)
    assert sorted(begun) == [1, 2, 3, 4, 5] and (at_once > 1 or begun == sorted(begun))
    assert [str(error) for error in failed] == ["the second"]


def test_two_are_at_work_at_a_time():
    both = threading.Barrier(2, timeout=30)
    assert share(lambda item, stop: both.wait(), "ab", 2) == []


@pytest.mark.parametrize("error", [InputError("a wrong value"), DiskError("no space"), KeyboardInterrupt("enough")])
def test_any_other_error_stops_what_is_in_hand_begins_nothing_more_and_is_raised(error):
    begun = []
    first = threading.Event()

    def work(item, stop):
        begun.append(item)
        if item == "bad":
            first.wait(30)
            raise error
        first.set()
        deadline = time.monotonic() + 30
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop(), "was not asked to stop"

    with pytest.raises(type(error), match=str(error)):
        share(work, ["long", "bad", "never"], 2)
    assert set(begun) == {"long", "bad"}


def test_finished_runs_are_scored_by_a_process_for_each_gpu(two_gpus, tmp_path):
    """The processes are real; what they are asked to score is not there."""
    wanted = [Scoring(f"nothing-d2-s{seed}-0123456789", texts=("texts",)) for seed in (1, 2)]
    with pytest.raises(InputError, match="nothing-d2-s1-0123456789"):
        shared.score(Root(tmp_path), wanted)


SCORING = """
import os, pathlib, signal, sys, time
from tasks.engines import shared
from tasks.errors import InterruptedRun
from tasks.store.root import Root

def long(root, wanted):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(300)

def interrupt(*_):
    raise InterruptedRun("stopped")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    shared.visible_gpus = lambda: ["GPU-a", "GPU-b"]
    shared._score_there = long
    shared.score(Root(sys.argv[1] + "/root"), [shared.Scoring(f"run{i}") for i in range(3)])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_score_end_with_the_one_that_asked(tmp_path, number):
    script, began = tmp_path / "scoring.py", tmp_path / "began"
    began.mkdir()
    script.write_text(SCORING)
    asks = subprocess.Popen(
        [sys.executable, str(script), str(began)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
    )
    assert eventually(lambda: len([file for file in began.iterdir() if file.is_file()]) == 2)
    asks.send_signal(number)
    errors = asks.communicate(timeout=60)[1]
    assert number == signal.SIGKILL or b"InterruptedRun: stopped" in errors
    assert eventually(lambda: not any(psutil.pid_exists(int(file.name)) for file in began.iterdir() if file.is_file()))


def eventually(true) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def test_a_process_that_scores_and_is_killed_is_named(two_gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "_score_there", killed)
    with pytest.raises(LostProcessError, match="A process that scored runs was killed"):
        shared.score(Root(tmp_path), [Scoring("a"), Scoring("b")])


def killed(root, wanted):
    os.kill(os.getpid(), signal.SIGKILL)
