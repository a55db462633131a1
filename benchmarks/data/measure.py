"""Run one peer in a process of its own and measure it from outside: wall, CPU, peak memory, bytes and requests on the wire."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key of the emulator's account; the server does not look at it."""

CLIENTS = 4
"""Cores of clients that one process of the range server keeps busy."""


@dataclass(frozen=True)
class Measured:
    """One run: seconds of wall and CPU, peak MiB of the process tree (what processes share is counted for each), MB and requests on
    the wire, MB written."""

    wall: float
    cpu: float
    memory: float
    wire: float
    requests: int
    written: float


@dataclass(frozen=True)
class Store:
    """A range server, by the processes that answer."""

    processes: tuple[psutil.Process, ...]

    def cpu(self) -> float:
        """Seconds of CPU until now."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@contextmanager
def serving(folder: Path, delay: float, log: Path) -> Iterator[Store]:
    """A range server over `folder`, one process for every `CLIENTS` cores, and the environment that leads to it."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.data.range_server",
        str(folder),
        "--delay",
        str(delay),
        "--log",
        str(log),
        "--processes",
        str(-(-len(os.sched_getaffinity(0)) // CLIENTS)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        port = int(process.stdout.readline())
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
        server = psutil.Process(process.pid)
        yield Store((server, *server.children()))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextmanager
def warm_memory(folder: Path) -> Iterator[Callable[[], None]]:
    """A function that fills the free memory with page cache, as it is on a machine that has been up for a while.

    Where a hypervisor takes free memory back, as here and there in clouds, whoever touches it first pays for its return, 3 to
    4 s of CPU a GB; page cache that the kernel gives up for something else costs next to nothing.
    """
    path, place, size = folder / "zeros", 0, 4 * psutil.virtual_memory().total
    try:
        with path.open("wb") as file:
            file.truncate(size)  # a hole: it takes no disk

        def fill() -> None:
            nonlocal place
            part = bytearray(1 << 20)
            with path.open("rb", buffering=0) as zeros:
                for _ in range(psutil.virtual_memory().free // len(part)):
                    zeros.seek(place := (place + len(part)) % size)
                    zeros.readinto(part)

        yield fill
    finally:
        path.unlink(missing_ok=True)


def adopt_orphans() -> None:
    """Become the parent of what a peer leaves (Linux): a server of processes ends after it, and its CPU is counted then."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)


def high_water(pid: int) -> int:
    """The most KiB that a process has held so far (its rusage would count the process it was forked from)."""
    with Path(f"/proc/{pid}/status").open() as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)


def measure(name: str, url: str, out: Path, share: float, log: Path) -> Measured:
    """Run a peer, for `NAME@CHECKOUT` that of another checkout. Raises SystemExit if it fails."""
    log.write_text("")
    began = time.monotonic()
    kind, _, checkout = name.partition("@")
    command = [sys.executable, "-m", "benchmarks.data.peers", kind, url, str(out), "--share", str(share)]
    elsewhere = {"cwd": checkout, "env": os.environ | {"PYTHONPATH": checkout}} if checkout else {}
    others = {child.pid for child in psutil.Process().children()}
    adopt_orphans()
    process = subprocess.Popen(command, **elsewhere)
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        tree = psutil.Process(process.pid)
        while not ended.wait(0.05):
            try:
                peak = max(peak, sum(high_water(p.pid) for p in (tree, *tree.children(recursive=True))))
            except (psutil.Error, OSError):
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    used = [usage]
    while orphans := {child.pid for child in psutil.Process().children()} - others:
        used.append(os.wait4(orphans.pop(), 0)[2])
    if process.returncode:
        raise SystemExit(f"The peer {name} failed with status {process.returncode}.")
    reads = [line.split("\t") for line in log.read_text().splitlines()]
    written = sum(p.stat().st_size for p in out.rglob("*.parquet"))
    shutil.rmtree(out)
    return Measured(
        wall=wall,
        cpu=sum(one.ru_utime + one.ru_stime for one in used),
        memory=peak / 1024,
        wire=sum(int(end) - int(start) for _, start, end in reads) / 1e6,
        requests=len(reads),
        written=written / 1e6,
    )
