"""Keep one command running where there is no systemd: start it again when it ends, one copy only.

    supervise.py start FOLDER NAME COMMAND...   in the background, unless it runs already
    supervise.py stop FOLDER NAME               end the command and its supervisor
    supervise.py status FOLDER NAME             exit status 0 when it runs
    supervise.py run FOLDER NAME COMMAND...     in the foreground

FOLDER holds NAME.lock (held as long as the supervisor lives), NAME.pid and NAME.log. Standard library only: it also
runs by itself. The command is ended with SIGKILL, as systemd does with KillMode=process and KillSignal=SIGKILL: a
Prefect worker that gets SIGTERM takes its flow runs with it, one that is killed leaves them to finish.
It does not come back by itself after a reboot.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LONGEST_PAUSE = 60.0
LARGEST_LOG = 20_000_000
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def lock(path: Path):
    """The open file that holds the lock, or None when another supervisor has it."""
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def run(folder: Path, name: str, command: list[str]) -> int:
    """Run the command again and again until SIGTERM or SIGINT."""
    held = lock(folder / f"{name}.lock")
    if held is None:
        return 0
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    stopping = False
    child = None

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        if child is not None and child.poll() is None:
            child.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    libc = ctypes.CDLL(None, use_errno=True)
    log = (folder / f"{name}.log").open("ab", buffering=0)
    pause = 1.0
    while not stopping:
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: libc.prctl(DEATH_SIGNAL, signal.SIGKILL),
        )
        while child.poll() is None:
            time.sleep(0.2)
            if os.fstat(log.fileno()).st_size > LARGEST_LOG:
                log.truncate(0)  # opened for appending: the command goes on writing at the new end
        if stopping:
            break
        pause = 1.0 if time.monotonic() - started > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            log.write(f"{stamp} {name} ended with status {child.returncode}, again in {pause:.0f} s\n".encode())
        wake = time.monotonic() + pause
        while not stopping and time.monotonic() < wake:
            time.sleep(0.2)
    (folder / f"{name}.pid").unlink(missing_ok=True)
    return 0


def running(folder: Path, name: str) -> bool:
    """Whether a supervisor of that name holds its lock."""
    handle = lock(folder / f"{name}.lock")
    if handle is not None:
        handle.close()
    return handle is None


def start(folder: Path, name: str, command: list[str]) -> int:
    """Start a supervisor in a session of its own; 0 when it runs then."""
    folder.mkdir(parents=True, exist_ok=True)
    if not running(folder, name):
        subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "run", str(folder), name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{name}.log").open("ab"),
            start_new_session=True,
            cwd=folder,
        )
    return wait(lambda: running(folder, name))


def stop(folder: Path, name: str) -> int:
    """Stop a supervisor and its command; 0 when neither runs then."""

    def stopped() -> bool:
        if not running(folder, name):
            return True
        # One that has just begun is not in the file yet: whom an older one named may be anybody by now.
        with contextlib.suppress(OSError, ValueError):
            process = int((folder / f"{name}.pid").read_text())
            if b"supervise.py" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGTERM)
        return False

    return wait(stopped)


def wait(condition) -> int:
    """0 when the condition comes true within ten seconds, else 1."""
    for _ in range(100):
        if condition():
            return 0
        time.sleep(0.1)
    return 1


def main(arguments: list[str]) -> int:
    action, folder, name, *command = arguments
    place = Path(folder)
    if action == "status":
        return 0 if place.is_dir() and running(place, name) else 1
    if action == "stop":
        return stop(place, name) if place.is_dir() else 0
    return {"start": start, "run": run}[action](place, name, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
