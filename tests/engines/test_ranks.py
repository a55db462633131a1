"""The processes of a training: told who they are, ended together, and with their launcher."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tasks.engines import ranks
from tasks.engines.ranks import Ranks, StopRequest, launch
from tests.waiting import within

PYTHON = [sys.executable, "-c"]


OF_A_CLUSTER = {
    "RANK": "3",
    "LOCAL_RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "none",
}


def test_a_single_rank_is_not_told_that_it_is_one(tmp_path, monkeypatch):
    for name, value in OF_A_CLUSTER.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "log.txt"
    code = "import os; print([name for name in os.environ if 'RANK' in name or 'WORLD' in name or 'MASTER' in name or 'ELASTIC' in name])"
    assert launch([*PYTHON, code], 1, log=log) == 0
    assert log.read_text() == "[]\n"


def test_lines_come_once_and_whole(tmp_path):
    program = (
        "import time; print('one'); print('tw', end='', flush=True); time.sleep(1); print('o'); print('end', end='')"
    )
    log = tmp_path / "log.txt"
    log.write_text("of an earlier attempt\n")
    started = Ranks.start([*PYTHON, program], [log], environment={"PYTHONUNBUFFERED": "1"}, folder=tmp_path)
    lines = []
    while started.status() is None:
        lines += started.lines()
        time.sleep(0.02)
    assert [*lines, *started.lines()] == ["one", "two"]
    assert started.status() == 0


def test_the_first_failure_counts_and_its_last_words_are_kept(tmp_path):
    program = "import os, sys, time; r = int(os.environ['RANK']); r or time.sleep(60); sys.exit('rank 1 lacks memory')"
    started = Ranks.start([*PYTHON, program], [tmp_path / "0.txt", tmp_path / "1.txt"])
    while started.status() is None:
        time.sleep(0.02)
    assert started.status() == 1
    assert started.last_words() == "rank 1 lacks memory"
    started.end(grace=1)
    assert started.processes[0].returncode == -signal.SIGTERM


def test_ranks_are_in_our_process_group(tmp_path):
    log = tmp_path / "log.txt"
    assert launch([*PYTHON, "import os; print(os.getpgrp())"], 1, log=log) == 0
    assert log.read_text() == f"{os.getpgrp()}\n"


def test_ranks_know_who_they_are(tmp_path):
    log = tmp_path / "log.txt"
    code = "import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'], flush=True)"
    assert launch([*PYTHON, code], 3, log=log) == 0
    assert sorted(log.read_text().splitlines()) == ["0 3 0", "1 3 1", "2 3 2"]


def test_a_failed_rank_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "ORPHAN_GRACE", 1.0)
    code = "import os, sys, time; sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(100)"
    began = time.monotonic()
    assert launch([*PYTHON, code], 2, log=tmp_path / "log.txt") == 7
    assert time.monotonic() - began < 40


def test_a_rank_that_stops_later_than_the_others_is_waited_for(tmp_path, monkeypatch):
    """Rank 0 publishes the checkpoint after the others have written their part and gone."""
    monkeypatch.setattr(ranks, "ORPHAN_GRACE", 0.1)
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
    assert within(60, lambda: log.is_file() and "up" in log.read_text())
    parent.kill()
    parent.wait()
    assert within(60, lambda: "stopped" in log.read_text())


def test_a_process_knows_when_it_was_started() -> None:
    before = time.time()
    program = "import time; woke = time.time(); from tasks.engines.ranks import began; print(began(), woke)"
    started, woke = map(float, subprocess.check_output([*PYTHON, program]).split())
    assert before - 0.02 <= started <= woke
