"""Processes and ports of the stack: found by their mark, ended with their children, strangers left alone."""

import os
import socket
import subprocess
import sys

import psutil
import pytest

from infra.local import ports, processes
from tests.waiting import within

NAP = [sys.executable, "-c", "import time; time.sleep(120)"]
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
time.sleep(120)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(120)
"""


@pytest.fixture
def mark():
    name = os.urandom(8).hex()
    yield name
    processes.stop(name, patience=0.1)


def start(tmp_path, mark, command):
    log = tmp_path / "logs" / "x.log"
    return processes.start(command, mark=mark, log=log, cwd=tmp_path, environment=dict(os.environ)), log


def test_a_process_is_ended_with_a_child_that_left_its_session(tmp_path, mark):
    pid, _ = start(tmp_path, mark, [sys.executable, "-c", PARENT])
    assert within(20, lambda: len(processes.members(mark)) == 2)
    psutil.Process(pid).kill()
    assert processes.stop(mark) >= 1
    assert processes.members(mark) == []


def test_a_process_that_ignores_sigterm_is_killed(tmp_path, mark):
    pid, log = start(tmp_path, mark, [sys.executable, "-c", STUBBORN])
    assert within(20, lambda: log.read_text() == "ready\n")
    assert processes.stop(mark, patience=0.5) == 1
    assert not processes.belongs(pid, mark)


def test_strangers_are_left_alone(tmp_path, mark):
    with subprocess.Popen(NAP) as stranger:
        try:
            pid, _ = start(tmp_path, mark, NAP)
            assert within(20, lambda: processes.belongs(pid, mark))
            assert not processes.belongs(stranger.pid, mark)
            assert processes.stop(mark) == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_process_is_in_a_session_of_its_own(tmp_path, mark):
    pid, _ = start(tmp_path, mark, NAP)
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_taken_port_gives_the_next_free_one(tmp_path, mark):
    other, _ = start(tmp_path, mark, NAP)
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
        chosen = ports.choose(port)
        assert chosen != port
        assert ports.is_free(chosen)
        assert processes.listens(os.getpid(), port)
        assert processes.listens(os.getppid(), port)  # a child's port is its parent's
        assert not processes.listens(other, port)


def test_waiting_ends_with_the_one_who_is_waited_for():
    assert ports.wait(lambda: True, lambda: True, 5)
    assert not ports.wait(lambda: False, lambda: False, 60)
    assert not ports.wait(lambda: False, lambda: True, 0.3)
