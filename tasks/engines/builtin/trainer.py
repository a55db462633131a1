"""`python -m tasks.engines.builtin.trainer FD IDENTITY`: trains one run after another, and keeps what takes long to load.

Interpreter, CUDA context, kernels and libraries stay; what could pass from one run to the next is put back before each: random
states, peak memory, cached memory. `tasks.engines.warm` starts it with a listening socket and speaks for the caller; the lines on a
connection are JSON:

    -> {"pid": 17, "identity": "..."}          <- {"job": "/.../job.json", "log": "/.../log.txt", "verified": true}
    -> {"status": 0}                           <- {"stop": true}, or the end of the connection
                                               <- {"leave": true} instead of a job

It ends after five idle minutes, by SIGTERM (with a checkpoint), and after an error that nobody foresaw, as one of CUDA, whose
state cannot be trusted.
"""

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from tasks.engines.ranks import StopRequest

IDLE_SECONDS = 300.0
REQUEST_SECONDS = 60.0
"""How long a caller may take to say what it wants."""
LEFT_BEHIND = ("checkpoint", "mirror")
"""Threads of a run that may go on after it, as with a copy to a remote root that was given up: then the process ends."""


class Trainer:
    """Serves connections one at a time, on the main thread."""

    def __init__(self, listener: socket.socket, identity: str):
        import torch

        # what every run needs, before the first one asks; without Triton, as on a CPU, there are no kernels
        for name in ("attempt", "fused") if find_spec("triton") else ("attempt",):
            import_module(f"tasks.engines.builtin.{name}")
        self._listener, self._identity = listener, identity
        self._stop: StopRequest | None = None
        self._leaving = False
        self._random = torch.get_rng_state()
        self._shape: tuple[int, int, str] | None = None
        self._random_cuda: Any = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def serve(self) -> None:
        """Until it is asked to leave, or nobody has come for a while."""
        self._listener.settimeout(IDLE_SECONDS)
        while not self._leaving:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                return
            with connection, contextlib.suppress(OSError):
                self._attend(connection)

    def _attend(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_SECONDS)
        _say(connection, pid=os.getpid(), identity=self._identity)
        request = _hear(connection)
        if request.get("leave"):
            self._leaving = True
        if "job" not in request:
            return
        connection.settimeout(None)
        began, self._stop = time.time(), StopRequest()
        threading.Thread(target=_await_stop, args=(connection, self._stop), name="caller", daemon=True).start()
        _print_to(request["log"])
        status = self._run(Path(request["job"]), self._stop, began, bool(request.get("verified")))
        self._stop = None
        _print_to(os.devnull)
        self._clean_up()
        if self._leaving:
            self._listener.close()
        _say(connection, status=status)

    def _run(self, job_file: Path, stop: StopRequest, began: float, verified: bool) -> int:
        from tasks.engines.builtin.attempt import attempt
        from tasks.engines.builtin.distributed import join
        from tasks.engines.builtin.outcome import outcome
        from tasks.errors import BusyError, DamagedError, DiskError, InputError, TrainingError
        from tasks.records.job import DONE, RESUME, Job

        def work() -> int:
            try:
                job = Job.read(job_file)
                world = join(job.experiment.training.device)
                self._put_back(world.device, job.experiment.training)
                return DONE if attempt(job, world, stop, began, verified) else RESUME
            except (InputError, DamagedError, BusyError, DiskError, TrainingError):
                raise
            except BaseException:
                self._leaving = True
                raise

        return outcome(job_file, work)

    def _put_back(self, device: Any, training: Any) -> None:
        """Let a run find what it would find in a process of its own."""
        import torch

        shape = (training.depth, training.sequence_length, training.window_pattern)
        if self._shape not in (None, shape):
            torch._dynamo.reset()  # type: ignore[no-untyped-call]  # what it compiles for one process is limited
        self._shape = shape
        torch.set_rng_state(self._random)
        if device.type == "cuda":
            if self._random_cuda is None:
                self._random_cuda = torch.cuda.get_rng_state(device)
            torch.cuda.set_rng_state(self._random_cuda, device)
            torch.cuda.reset_peak_memory_stats(device)

    def _clean_up(self) -> None:
        """Free what the run held; leave if a part of it goes on, or the GPU is in error."""
        import torch

        gc.collect()
        if torch.cuda.is_initialized():
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                self._leaving = True
        for thread in threading.enumerate():
            if thread.name.startswith(LEFT_BEHIND):
                thread.join(1.0)
                self._leaving |= thread.is_alive()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """A signal: leave, after the checkpoint of the run in hand."""
        self._leaving = True
        if self._stop is None:
            raise SystemExit
        self._stop.set()


def _await_stop(connection: socket.socket, stop: StopRequest) -> None:
    """The caller says nothing but that the run is to stop; its death says so too."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    stop.set()


def _hear(connection: socket.socket) -> dict[str, Any]:
    """One line, and nothing of what follows; empty when the caller hung up."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := connection.recv(1)):
            return {}
        line += byte
    request: dict[str, Any] = json.loads(line)
    return request


def _say(connection: socket.socket, **words: Any) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def _print_to(path: str) -> None:
    """Send what this process prints, in whatever library, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def main() -> None:
    """Leave the caller's family at once, then load."""
    if os.fork():
        os._exit(0)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr)
    Trainer(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]).serve()


if __name__ == "__main__":
    main()
    logging.shutdown()
    os._exit(0)
