"""Parallel rsync streams over SSH: shared out by bytes, watched, resumable.

A stream is one rsync process with a connection of its own: one TCP connection and one core of encryption are what a single
rsync is limited by. Each stream sends a list of files; what a cut leaves behind is continued (`--append-verify`).
"""

import contextlib
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tasks.store.artifact import FileRecord

BEGIN = "fabrating-rsync-begins"
SKIP = f'"$@" | {{ while IFS= read -r line; do case $line in *{BEGIN}) exec cat ;; esac; done; exit 255; }}'
"""Passes on what a remote rsync says, without what the login shell there printed before."""
RSYNC = (
    "rsync",
    f"--rsync-path=echo {BEGIN}; exec rsync",
    "--blocking-io",
    "--times",
    "--partial",
    "--append-verify",
    "--from0",
    "--files-from=-",
    "--timeout=60",
    "--info=progress2",
)
"""`--append-verify` continues a partial file and compares the whole of it; `--timeout` ends a stream that stands still;
`--blocking-io` is for SKIP, whose `cat` would end when rsync is slower than ssh."""
CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"
"""The first is several times as fast as OpenSSH's default where the processor has AES instructions."""
FAST_SSH = (
    "-o",
    f"Ciphers={CIPHERS}",
    "-o",
    "Compression=no",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=3",
)
LINK_LOST = (10, 12, 30, 35, 255)
"""Exit statuses of rsync and ssh: sockets, the protocol's stream, time out, no connection."""
_SENT = re.compile(rb"^\s*([\d,]+)\s+\d+%")


def rsync_shell(ssh: Sequence[str]) -> str:
    """An ssh command as rsync's `-e` takes it."""
    return shlex.join(["sh", "-c", SKIP, "sh", *ssh])


def share_out(files: Sequence[FileRecord], streams: int) -> list[list[FileRecord]]:
    """Files in at most `streams` groups of about equal bytes: the largest first, each to the lightest group."""
    groups: list[list[FileRecord]] = [[] for _ in range(max(1, min(streams, len(files))))]
    weights = [(0, 0)] * len(groups)  # bytes, then files: empty ones are shared out, too
    for record in sorted(files, key=lambda record: (-record.bytes, record.path)):
        lightest = weights.index(min(weights))
        groups[lightest].append(record)
        weights[lightest] = (weights[lightest][0] + record.bytes, len(groups[lightest]))
    return [group for group in groups if group]


@dataclass(frozen=True)
class Failure:
    """How one stream failed: rsync's exit status, and what it or ssh said."""

    status: int
    text: str

    @property
    def of_link(self) -> bool:
        """Whether the connection is to blame, which may come back."""
        return self.status in LINK_LOST


@dataclass
class Stream:
    """One running rsync; `sent` is the number of bytes of files that it has dealt with."""

    process: subprocess.Popen
    sent: int = 0
    messages: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, command: Sequence[str], files: Sequence[FileRecord], environment: dict[str, str]) -> "Stream":
        """Start a command that reads file names from its standard input."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        stream = cls(process)
        names = "\0".join(record.path for record in files).encode() + b"\0"
        for work in (lambda: stream._feed(names), stream._watch, stream._listen):
            threading.Thread(target=work, daemon=True).start()
        return stream

    def reason(self) -> str:
        """What it said first of what went wrong."""
        said = [message for message in self.messages if message and not message.startswith("rsync error")]
        named = (message for message in said if message.startswith(("rsync:", "ssh:")))
        return next(named, said[0] if said else f"rsync ended with {self.process.returncode}")

    def _feed(self, names: bytes) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.write(names)
            self.process.stdin.close()

    def _watch(self) -> None:
        line = b""
        while chunk := self.process.stdout.read1(4096):
            *lines, line = re.split(rb"[\r\n]", line + chunk)
            for seen in lines:
                if match := _SENT.match(seen):
                    self.sent = int(match.group(1).replace(b",", b""))

    def _listen(self) -> None:
        for raw in self.process.stderr:
            self.messages.append(raw.decode(errors="replace").strip())


def run_streams(
    commands: Sequence[Sequence[str]],
    groups: Sequence[Sequence[FileRecord]],
    environment: dict[str, str],
    report: Callable[[int], None],
) -> list["Failure"]:
    """Run one stream per group until all have ended; `report` gets the bytes dealt with so far, once a second.

    Returns the failure of each stream that failed; what it sent before stays where it is.
    """
    streams = [Stream.start(command, group, environment) for command, group in zip(commands, groups, strict=True)]
    try:
        while any(stream.process.poll() is None for stream in streams):
            time.sleep(0.1)
            report(sum(stream.sent for stream in streams))
    finally:
        for stream in streams:
            if stream.process.poll() is None:
                stream.process.kill()
            stream.process.wait()
    report(sum(stream.sent for stream in streams))
    return [Failure(stream.process.returncode, stream.reason()) for stream in streams if stream.process.returncode != 0]
