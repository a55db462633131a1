"""Background processes of the local stack: started in sessions of their own, found again, stopped with all their children.

Every process of a stack inherits the environment variable FABRATING_STACK. That, not a name pattern and not a number in
a file, decides what belongs to a stack: a process that outlived its parent is found, one that took over an old process
id is not touched.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARK = "FABRATING_STACK"


def start(command: Sequence[str], *, mark: str, log: Path, cwd: Path, environment: Mapping[str, str]) -> int:
    """Start `command` in its own session, so that Ctrl-C in the terminal is not for it. Returns its process id.

    `environment` is the whole of it, but for the mark.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The kernel shows the new environment a moment after the command has begun: until then nobody would know it as ours.
    deadline = time.monotonic() + 10
    while process.poll() is None and not belongs(process.pid, mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process.pid


def belongs(pid: int, mark: str) -> bool:
    """Whether the process lives and is one of the stack `mark`."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark)
    except (psutil.Error, OSError):
        return False


def listens(pid: int, port: int) -> bool:
    """Whether it is this process, or a child (some commands are wrappers), that listens on the loopback port."""
    try:
        process = psutil.Process(pid)
        return any(
            connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
            for one in (process, *process.children(recursive=True))
            for connection in one.net_connections(kind="tcp")
        )
    except (psutil.Error, OSError):
        return False


def members(mark: str) -> list[psutil.Process]:
    """All living processes of the stack `mark`, this one and its ancestors left out."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and belongs(process.pid, mark)]


def stop(mark: str, first: Sequence[int] = (), patience: float = 15.0) -> int:
    """End all processes of the stack `mark`; `first` (workers) get the time to end their runs. Returns how many there were.

    SIGTERM, then SIGKILL after `patience` seconds.
    """
    seen: set[int] = set()
    for pids, seconds in ((set(first), patience / 3), (None, patience)):
        targets = [p for p in members(mark) if pids is None or p.pid in pids]
        seen |= {process.pid for process in targets}
        for process in targets:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _reap(targets, seconds)
    while stubborn := members(mark):
        seen |= {process.pid for process in stubborn}
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _reap(stubborn, 2.0)
    return len(seen)


def end(pid: int, patience: float = 15.0) -> None:
    """End one process: SIGTERM, then SIGKILL after `patience` seconds."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        process.terminate()
        _reap([process], patience)
        process.kill()


def _reap(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until the processes are gone; collects those that are our own children."""
    deadline = time.monotonic() + seconds
    _, alive = psutil.wait_procs(list(processes), timeout=0)
    while alive and time.monotonic() < deadline:
        _, alive = psutil.wait_procs(alive, timeout=0.3)
        alive = [process for process in alive if _status(process) not in (None, psutil.STATUS_ZOMBIE)]


def _status(process: psutil.Process) -> str | None:
    try:
        return str(process.status())
    except psutil.Error:
        return None
