"""Where scripts run: this machine or a host, with the errors that people meet in one sentence each."""

import contextlib
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tasks.errors import InputError

FULL = "No space left on device"
WRONG_INPUT = 66
"""Exit status of our scripts when a person must change something; the last line says what."""
SIGNALS = 128
"""A shell's exit status for a command that signal N ended is this and N."""


class LinkError(ConnectionError):
    """The host cannot be reached, or the link to it was cut: worth another try."""


class CommandError(RuntimeError):
    """A script ended with a status other than 0 on a host."""


@dataclass(frozen=True)
class Result:
    """Exit status and text of a script."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line that says something, for a message."""
        lines = [line.strip() for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        errors = [line.strip() for line in self.err.splitlines() if line.strip()]
        return (errors or lines or ["no output"])[-1][:300]


class Machine(ABC):
    """Where scripts run: a host by SSH or this machine."""

    label: str

    def run(self, script: str, *args: str | int, timeout: float = 60, check: bool = True, stdin: bytes = b"") -> Result:
        """Run a POSIX shell script with arguments; its standard input is `stdin`.

        Raises CommandError for a status other than 0 (unless `check` is False), InputError when the disk is full,
        LinkError when the link or the time runs out.
        """
        result = self._run(script.replace("\r\n", "\n"), [str(arg) for arg in args], timeout, stdin)
        if result.status != 0 and FULL in result.err + result.out:
            raise InputError(f"The disk of {self.label} is full ({result.last}): free some space there and run again.")
        if result.status == WRONG_INPUT:
            raise InputError(f"{self.label}: {result.last.rstrip('.')}.")
        if check and result.status != 0:
            how = (
                f"exit status {result.status}"
                if result.status <= SIGNALS
                else f"killed by signal {result.status - SIGNALS}"
            )
            raise CommandError(f"{self.label}: {result.last.rstrip('.')} ({how}).")
        return result

    def put(self, data: bytes | str, path: str, mode: int = 0o600) -> None:
        """Write a file whole or not at all, with its mode from the first byte on."""
        data = data.encode() if isinstance(data, str) else data
        self.run(
            'umask 077\nmkdir -p "$(dirname "$1")"\ncat > "$1.part" && chmod "$2" "$1.part" && mv -f "$1.part" "$1"',
            path,
            f"{mode:o}",
            stdin=data,
            timeout=60 + len(data) / 100_000,
        )

    def read(self, path: str) -> str:
        """A text file, or an empty string when there is none."""
        return self.run('if [ -f "$1" ]; then cat "$1" || [ ! -f "$1" ]; fi', path).out  # it may go just then

    @abstractmethod
    def _run(self, script: str, args: list[str], timeout: float, stdin: bytes) -> Result:
        """What the script says and its exit status. Raises LinkError when the link or the time (seconds) runs out."""


class Local(Machine):
    """This machine."""

    label = "this machine"

    def _run(self, script: str, args: list[str], timeout: float, stdin: bytes) -> Result:
        command = ["sh", "-c", f"({script}\n); exit $?", "sh", *args]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(command, start_new_session=True, **pipes) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):  # what the script began ends, too, before a second try
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise LinkError(f"this machine: no end after {timeout:.0f} s.") from error
                raise
        return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
