"""The trainer process that stays: the runs of a comparison are trained in it one after another.

It listens on a Unix socket in a folder of this account's own, one process for each GPU (or root, on a CPU), serves whoever has the
turn there, and ends when nobody has asked for a while. It runs what a process for one run would, with the same job file, log, locks
and exit status. A client that dies or hangs up asks it to stop by that: it saves a checkpoint and waits for the next.
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.engines.ranks import GRACE, LAUNCHER, POLL_SECONDS, of_a_trainer
from tasks.engines.turns import Turn
from tasks.errors import BusyError, InputError
from tasks.progress import Stop
from tasks.records.job import RESUME
from tasks.store.artifact import fingerprint
from tasks.store.locks import PATIENCE

LOADING_SECONDS = 240.0
"""How long a trainer may take until it says hello: on a cold machine, whose disk is far away, PyTorch loads for minutes."""
NEWS = logging.getLogger(__name__)
SHELL = ("_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL", "PYTEST_CURRENT_TEST", LAUNCHER)
"""Variables that change from caller to caller and mean nothing to a trainer; nor do those of `OTHERS`."""
OTHERS = ("PREFECT_", "WANDB_")
"""How variables of callers' servers begin. W&B tells each process the socket of its own service."""
Variables = Mapping[str, str]


def train(
    job_file: Path, log: Path, root: Path, turn: Turn, *, verified: bool, poll: Callable[[], None], stop: Stop
) -> int | None:
    """Train a job to its end at the place of this turn. Returns the exit status; None when the process was lost.

    `verified`: the checksums of the packed rows were compared. `poll` is called a few times a second. `stop`, and any exception
    here (a cancelled flow, Ctrl-C), make the trainer save a checkpoint; it is killed if it has not answered 45 s later.
    Raises BusyError when the trainer is still at the run of a caller that is gone.
    """
    line = _line_to(root, turn, log, stop)
    if line is None:
        return RESUME if stop() else None
    with line:
        line.say(job=str(job_file), log=str(log), verified=verified)
        try:
            while (answer := line.hear(POLL_SECONDS)) is None and not stop():
                poll()
        except BaseException:
            NEWS.warning("Stopping: the training saves a checkpoint first, in %.0f s at most.", GRACE)
            line.hang_up()
            raise
        return (line.hang_up() if answer is None else answer).get("status")


def get_ready(root: Path, turn: Turn) -> None:
    """Start trainers at those of these places that have none. They load what takes long, but nothing onto a GPU, and wait for a run."""
    for place in turn.places:
        address, environment = _address(place), trainer_environment(Turn((place,), turn.gpus))
        try:
            Line(address).close()
        except OSError:
            _start(address, identity(root, environment), environment, Path(os.devnull))


def dismiss(turn: Turn) -> None:
    """End idle trainers on the GPUs of this turn: their contexts would take memory from the process that trains there next."""
    for place in turn.places if turn.gpus else ():
        with contextlib.suppress(OSError), Line(_address(place)) as line:
            line.dismiss(PATIENCE)


class Line:
    """A connection to the trainer at `address`. Raises OSError where none listens."""

    def __init__(self, address: Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._heard = b""
        self._pid = 0
        try:
            self._socket.connect(str(address))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def say(self, **words: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone: the next answer says so
            self._socket.sendall(json.dumps(words).encode() + b"\n")

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """The next thing it says; None when that takes longer. Empty: it is gone."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        try:
            more = self._socket.recv(65_536)
        except OSError:
            return {}
        self._heard += more
        if not more:
            return {}
        line, end, rest = self._heard.partition(b"\n")
        if not end:
            return None
        self._heard = rest
        answer: dict[str, Any] = json.loads(line)
        self._pid = answer.get("pid", self._pid)
        return answer

    def hang_up(self) -> dict[str, Any]:
        """Ask for a checkpoint and wait for the answer; SIGKILL after 45 s without one."""
        self.say(stop=True)
        answer = self._next(GRACE)
        if answer is None and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        return answer or {}

    def dismiss(self, seconds: float) -> bool:
        """Ask it to end, and wait. Returns whether it is gone."""
        self.say(leave=True)
        deadline = time.monotonic() + seconds
        while (answer := self.hear(POLL_SECONDS)) != {} and time.monotonic() < deadline:
            pass
        return answer == {}

    def _next(self, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        while (answer := self.hear(POLL_SECONDS)) is None and time.monotonic() < deadline:
            pass
        return answer


def _line_to(root: Path, turn: Turn, log: Path, stop: Stop) -> Line | None:
    """A connection to a trainer that this process may use, which is started if need be. None when it died, or on `stop`."""
    address, environment = _address(turn.places[0]), trainer_environment(turn)
    wanted = identity(root, environment)
    started, began = False, time.time()
    while True:
        try:
            line = Line(address)
        except OSError:
            if started:
                return None
            _start(address, wanted, environment, log)
            started = True
            continue
        deadline = max(began + PATIENCE, address.stat().st_ctime + LOADING_SECONDS)
        while (hello := line.hear(POLL_SECONDS)) is None:
            if stop():
                line.close()
                return None
            if not started and (now := time.time()) > deadline:
                line.close()
                raise BusyError(
                    f"The trainer of this host is still at an earlier run after {now - began:.0f} s: run again."
                )
        if hello.get("identity") == wanted:
            return line
        with line:  # other code, or another environment
            if hello:
                line.dismiss(PATIENCE)
            elif started:
                return None


def _start(address: Path, identity: str, environment: Variables, log: Path) -> None:
    """Start a trainer that listens at `address`. It leaves our process group, and belongs to nobody."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, log.open("ab") as output:
        listener.bind(str(address))
        listener.listen()
        number = listener.fileno()
        subprocess.Popen(
            [sys.executable, "-m", "tasks.engines.builtin.trainer", str(number), identity],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[number],
            start_new_session=True,
        ).wait()


def identity(root: Path, environment: Variables) -> str:
    """What a trainer and its caller must have in common: interpreter, code, PyTorch, root, folder and environment."""
    package = Path(__file__).resolve().parents[1]
    code = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(package.rglob("*.py"))]
    return sha256(
        json.dumps(
            [sys.executable, code, version("torch"), str(root), str(Path.cwd()), sorted(environment.items())]
        ).encode()
    ).hexdigest()


def trainer_environment(turn: Turn) -> dict[str, str]:
    """Ours without what is another for each caller, and with the GPU of this turn."""
    kept = {name: value for name, value in os.environ.items() if name not in SHELL and not name.startswith(OTHERS)}
    return of_a_trainer(kept) | turn.environment


def _address(place: str) -> Path:
    """The socket of the trainer at a place, in a folder that only this account can enter. Raises InputError otherwise."""
    folder = Path(f"/tmp/fabrating-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InputError(f"{folder} is not a folder of this account alone: remove it, and run again.")
    return folder / f"{fingerprint(place)}.sock"
