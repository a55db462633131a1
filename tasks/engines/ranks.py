"""The processes of a training on this host, its ranks: starting, following and ending them, without importing torch.

They stay in the caller's process group: what cancels the caller reaches them, and so does the caller's death.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tasks.progress import Stop, never
from tasks.records.job import RESUME

GRACE = 45.0
"""Seconds between SIGTERM and SIGKILL: a checkpoint takes up to 30."""
ORPHAN_GRACE = 20.0
"""The same for ranks that lost one of their number and cannot go on."""
POLL_SECONDS = 0.25
OF_A_RANK = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR",
             "MASTER_PORT")  # fmt: skip
"""Environment variables by which a rank knows who it is, as torchrun sets them (and TORCHELASTIC_...)."""
LAUNCHER = "FABRATING_LAUNCHER"
"""Environment variable with the process id of the launcher, for its ranks."""


@dataclass
class Ranks:
    """Started processes, and the file that each one's output is appended to (None: it prints where the caller does)."""

    processes: list[subprocess.Popen[bytes]]
    logs: Sequence[Path | None]
    _read: int = field(default=0)
    _torn: bytes = field(default=b"")

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        logs: Sequence[Path | None],
        *,
        environment: Mapping[str, str] = os.environ,
        folder: Path | None = None,
        inherit: Sequence[int] = (),
    ) -> "Ranks":
        """Start one rank per entry of `logs`, in `folder`. `inherit`: file descriptors (locks) that ranks keep open.

        Several ranks are told who they are as torchrun does it (RANK, WORLD_SIZE, MASTER_PORT, ...); a single one is not.
        """
        count = len(logs)
        shared = of_a_trainer(environment) | {LAUNCHER: str(os.getpid())}
        if count > 1:
            shared |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        ranks = cls([], logs, logs[0].stat().st_size if logs[0] and logs[0].exists() else 0)
        try:
            for rank, log in enumerate(logs):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
                output = log.open("ab") if log else None
                try:
                    process = subprocess.Popen(
                        command,
                        cwd=folder,
                        env=shared | own,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        pass_fds=inherit,
                    )
                finally:
                    if output:
                        output.close()
                ranks.processes.append(process)
        except BaseException:
            ranks.end(0)
            raise
        return ranks

    def status(self) -> int | None:
        """None while one runs and none has failed; else the exit status of the first that failed, or 0."""
        statuses = [process.poll() for process in self.processes]
        failed = next((status for status in statuses if status), None)
        return failed or (None if None in statuses else 0)

    def wait(self, seconds: float) -> None:
        """Until all have ended, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
            time.sleep(0.1)

    def end(self, grace: float = GRACE) -> None:
        """SIGTERM to those that still run (they save a checkpoint), SIGKILL after `grace` seconds."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        self.wait(grace)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def lines(self) -> Iterator[str]:
        """Complete lines that the first rank has printed since the last call."""
        data = read_from(self.logs[0], self._read)
        self._read += len(data)
        *whole, self._torn = (self._torn + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def last_words(self) -> str:
        """The last line of the log of the first rank that failed, for a message."""
        failed = [log for process, log in zip(self.processes, self.logs, strict=True) if process.returncode]
        lines = read_from((failed or self.logs)[0]).decode(errors="replace")[-4_000:].strip().splitlines()
        return lines[-1][:300] if lines else "no output"


def of_a_trainer(environment: Mapping[str, str]) -> dict[str, str]:
    """What a training's process gets of an environment, who it is among its ranks left out."""
    kept = alone(environment)
    # Threads that spin while they wait halve the speed of a training on cores that it shares with a server and a worker.
    kept.setdefault("OMP_WAIT_POLICY", "passive")
    return kept


def launch(
    command: Sequence[str],
    processes: int,
    *,
    environment: Mapping[str, str] = os.environ,
    log: Path | None = None,
    poll: Callable[[], None] = lambda: None,
    stop: Stop = never,
) -> int:
    """Run `command` as `processes` ranks, one log for all, to their end. Returns the exit status of the first that failed, or 0.

    When one fails the others are ended. `poll` is called a few times a second. `stop`, and any exception here (a cancelled
    flow, Ctrl-C), send SIGTERM to the ranks, so that they write a checkpoint, and SIGKILL after 45 s.
    """
    ranks = Ranks.start(command, [log] * processes, environment=environment)
    grace = GRACE
    try:
        while ranks.status() is None and not stop():
            poll()
            time.sleep(POLL_SECONDS)
        failure = ranks.status()
        if failure:
            # Ranks that end for the same reason do so soon, the first one last: it publishes what all have written. One that
            # waits in a collective for a rank that died never does.
            grace = GRACE if failure == RESUME else ORPHAN_GRACE
            ranks.wait(grace)
    finally:
        ranks.end(grace)
    return failure or ranks.status() or 0


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that is no rank, whatever a job of somebody's own exports in the shell."""
    return {n: v for n, v in environment.items() if n not in OF_A_RANK and not n.startswith("TORCHELASTIC_")}


def is_rank() -> bool:
    """Whether this process was started as one of several, by `Ranks` or by torchrun. RANK alone may be left from elsewhere."""
    return "RANK" in os.environ and (LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ)


def read_from(log: Path, place: int = 0) -> bytes:
    """What a log holds from byte `place` on."""
    with log.open("rb") as file:
        file.seek(place)
        return file.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def began() -> float:
    """When this process was started, as `time.time` has it, to a hundredth of a second. On Linux psutil adds to the whole second in
    which the machine was booted, up to one too early."""
    if sys.platform != "linux":
        return float(psutil.Process().create_time())
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


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
