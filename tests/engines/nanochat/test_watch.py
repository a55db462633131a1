"""A hang is told from a long evaluation, a compilation and a slow step."""

import signal
import sys
from pathlib import Path

import pytest

from tasks.engines.nanochat import watch
from tasks.engines.nanochat.logs import Step, Told, Validation
from tasks.engines.nanochat.watch import Watch, likely_cause, stacks
from tasks.engines.ranks import Ranks
from tests.waiting import within


def step(done: int, seconds: float = 3.0) -> Step:
    return Step(done, 100, 5.0, 1.0, seconds, 1000, None)


class Time:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def watcher(clock: Time) -> Watch:
    return Watch(times=10, least=20, clock=clock)


def after(clock: Time, watcher: Watch, seconds: float, percents: list[int] | None = None) -> bool:
    clock.now += seconds
    return watcher.hangs(lambda: percents)


def test_a_silence_of_many_steps_is_a_hang(clock: Time, watcher: Watch) -> None:
    for done in range(1, 6):
        watcher.hear(step(done))
    assert not after(clock, watcher, 29)
    assert after(clock, watcher, 2)
    watcher.hear(step(6))
    assert not after(clock, watcher, 0)


def test_short_steps_get_the_least_time(clock: Time, watcher: Watch) -> None:
    for done in range(1, 6):
        watcher.hear(step(done, 0.1))
    assert not after(clock, watcher, 19)
    assert after(clock, watcher, 2)


def test_the_first_step_may_take_long_for_it_compiles(clock: Time, watcher: Watch) -> None:
    assert not after(clock, watcher, watch.STARTING - 1)
    watcher.hear(step(1, 200.0))
    assert not after(clock, watcher, watch.STARTING - 1)
    assert after(clock, watcher, 2)


@pytest.mark.parametrize(
    ("sign", "limit"),
    [
        (Told("evaluating", {"done": 0}), watch.EVALUATING),
        (Told("saving", {}), watch.SAVING),
        (Told("saved", {}), watch.EVALUATING),
        (Validation(250, 0.9), 30),
    ],
)
def test_each_sign_says_how_long_the_next_silence_may_be(clock: Time, watcher: Watch, sign, limit: float) -> None:
    for done in range(1, 6):
        watcher.hear(step(done))
    watcher.hear(sign)
    assert not after(clock, watcher, limit - 1)
    assert after(clock, watcher, 2)


def test_where_every_gpu_computes_it_waits_longer(clock: Time, watcher: Watch) -> None:
    for done in range(1, 6):
        watcher.hear(step(done))
    assert not after(clock, watcher, 60, [100, 98])
    assert after(clock, watcher, 0, [100, 0])
    assert after(clock, watcher, 31, [100, 98])


STUCK = """
import faulthandler, signal, sys, time, threading
faulthandler.register(signal.SIGUSR1, all_threads=True)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def read_row_group():
    time.sleep(60)

def _document_batches():
    read_row_group()

print("ready", flush=True)
_document_batches()
"""


def test_stacks_say_which_rank_does_what(tmp_path: Path) -> None:
    (tmp_path / "dataloader.py").write_text(STUCK)
    logs = [tmp_path / "0.txt", tmp_path / "1.txt"]
    ranks = Ranks.start([sys.executable, "dataloader.py"], logs, environment={}, folder=tmp_path)
    try:
        assert within(20, lambda: all("ready" in log.read_text() for log in logs))
        assert likely_cause(stacks(ranks)).startswith(
            "rank 0 is in read_row_group (dataloader.py): it looks for documents"
        )
        ranks.processes[1].send_signal(signal.SIGSTOP)
        assert likely_cause(stacks(ranks)).startswith("rank 1 does not answer")
    finally:
        ranks.end(grace=0)


def test_a_rank_that_waits_for_others_is_not_the_cause() -> None:
    waits = 'Current thread 0x1 (most recent call first):\n  File "/x/distributed_c10d.py", line 1 in all_reduce\n'
    reads = 'Current thread 0x1 (most recent call first):\n  File "/x/dataloader.py", line 9 in _document_batches\n'
    assert likely_cause([waits, reads]).startswith(
        "rank 1 is in _document_batches (dataloader.py): it looks for documents"
    )
    assert "NCCL" in likely_cause([waits, waits])
