"""Files of the root that are damaged, and disks that are full."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.harness.faults.kind import Harm, kind, send


@kind("a byte of the packed rows is flipped between two attempts")
def packed_byte(harm: Harm) -> None:
    send(harm.server.flow_process(harm.in_training()), signal.SIGKILL)
    (path,) = harm.run.made("arms/*/packed/*/rows.bin")
    with path.open("r+b") as file:
        place = harm.random.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << harm.random.randrange(8)]))
    harm.moment += f", byte {place}"


@kind("a checkpoint is cut short between two attempts")
def checkpoint_short(harm: Harm) -> None:
    run = harm.in_training()
    harm.run.wait("a checkpoint", lambda: harm.run.made("runs/*/checkpoints/step_*/manifest.json"))
    everything = harm.server.processes_of(run)
    harm.strike(harm.moment)
    send(everything, signal.SIGKILL)  # with its trainer: the newest checkpoint is the one that is cut
    newest = harm.run.made("runs/*/checkpoints/step_*/model.pt")[-1]
    os.truncate(newest, harm.random.randrange(newest.stat().st_size))
    harm.moment += f", {newest.parent.name}"


@kind("a text shard is truncated before it is packed")
def shard_short(harm: Harm) -> None:
    run = harm.run.running("prepare")
    harm.run.wait("the text", lambda: harm.run.made("arms/*/text/manifest.json"))
    send(harm.server.processes_of(run), signal.SIGKILL)
    harm.strike("text complete, rows not packed")
    harm.finished.discard("text")  # it is damaged: reading it again is what must happen
    shard = harm.random.choice(harm.run.made("arms/*/text/shard_*.parquet"))
    os.truncate(shard, harm.random.randrange(shard.stat().st_size))
    harm.moment += f", {shard.name}"


@kind("the disk is full for 20 s of the training", small_disk=True)
def disk_full(harm: Harm) -> None:
    harm.in_training()
    with _full(harm.run.root):
        time.sleep(20)


@kind(
    "the disk is full from a moment of the preparation on, until it has stopped; then there is room",
    small_disk=True,
)
def disk_full_early(harm: Harm) -> None:
    run = harm.in_preparation()
    with _full(harm.run.root):
        harm.run.wait("a stop", lambda: (harm.run.state or {}).get("type") in ("FAILED", "COMPLETED"), 120)
        message = (harm.run.state or {}).get("message") or ""
        harm.moment += f", said: {message.rsplit('Error: ', 1)[-1][:160]}"
        if "free" not in message.lower():
            raise AssertionError(f"{run} does not say what is to be done about the disk: {message}")
    with contextlib.suppress(TimeoutError):  # what was stopped by the check beforehand is a person's to start
        harm.run.wait("a rerun", lambda: (harm.run.state or {}).get("type") != "FAILED", harm.run.patience)
        return
    harm.run.start()


@contextlib.contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "1g") -> Iterator[None]:
    """A file system of `size` (preparing needs half a gigabyte free) in memory, mounted at `folder`. Raises PermissionError if that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
