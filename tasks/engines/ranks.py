"""Starting the ranks of a training on this host, and ending them; without importing torch."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.progress import Stop, never
from tasks.records.job import RESUME

GRACE = 45.0
"""Seconds between SIGTERM and SIGKILL: a checkpoint takes up to 30."""
ORPHAN_GRACE = 20.0
"""The same for ranks that lost one of their number and cannot go on."""
LAUNCHER = "FABRATING_LAUNCHER"
"""Environment variable with the process id of the launcher, for its ranks."""


def die_with_launcher() -> bool:
    """Ask the kernel for SIGTERM when the process that launched this rank goes (Linux): the training then saves and ends.

    Without it a killed flow leaves an orphan that holds the GPU and that nobody can cancel. Does nothing in a process that
    was started by hand or by torchrun. False when the launcher is gone already.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return True
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    return os.getppid() == int(launcher)


def launch(
    command: Sequence[str],
    processes: int,
    *,
    log: Path | None = None,
    poll: Callable[[], None] = lambda: None,
    stop: Stop = never,
) -> int:
    """Run `command` as `processes` ranks on this host, in this process group, and return the exit status.

    The status is that of the first rank found failed, else 0; when one fails the others are ended. `log` takes what they
    print. `poll` is called a few times a second. `stop`, and any exception here (a cancelled flow, Ctrl-C), send SIGTERM to the
    ranks, so that they write a checkpoint, and SIGKILL after 45 s.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), LAUNCHER: str(os.getpid())}
    # Threads that spin while they wait halve the speed of a training on cores that it shares with a server and a worker.
    shared |= {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    output = log.open("ab") if log else None
    ranks: list[subprocess.Popen[bytes]] = []
    grace = GRACE
    try:
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            ranks.append(subprocess.Popen(command, env=os.environ | shared | own, stdout=output, stderr=output))
        while not stop() and _running(ranks) and not _first_failure(ranks):
            poll()
            time.sleep(0.25)
        failure = _first_failure(ranks)
        if failure:
            # Ranks that end for the same reason do so soon, the first one last: it publishes what all have written. One that
            # waits in a collective for a rank that died never does.
            grace = GRACE if failure == RESUME else ORPHAN_GRACE
            _await(ranks, grace)
        end(ranks, grace)
        return failure or _first_failure(ranks)
    finally:
        end(ranks, grace)
        if output is not None:
            output.close()


def _running(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """How many still run; asks each one, so that every return code is known."""
    return sum(rank.poll() is None for rank in ranks)


def _first_failure(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    return next((rank.returncode for rank in ranks if rank.returncode), 0)


def end(ranks: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """SIGTERM to those that still run, SIGKILL to those that run on after `grace` seconds."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    _await(ranks, grace)
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def _await(ranks: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _running(ranks) and time.monotonic() < deadline:
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StopRequest:
    """SIGTERM and SIGINT as a flag that the loop looks at between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> None:
        """Take the signals of this process. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def set(self) -> None:
        """Ask for a stop from inside the process."""
        self._event.set()

    def asked(self) -> bool:
        """Whether there was one."""
        return self._event.is_set()
