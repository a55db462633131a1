"""Trainer processes for tests: forked from a server that has torch loaded, so that each starts in a moment."""

import multiprocessing
import os
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tasks.records.layout import JOB
from tasks.records.metrics import read_metrics

CONTEXT = multiprocessing.get_context("forkserver")
SERVER = (
    forkserver.ForkServer()
)  # not the one of this process: a preparation before may have started that without torch
SERVER.set_forkserver_preload(["tasks.engines.builtin.__main__"])


def fork(target, *arguments):
    """Start a process that calls `target`."""
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forkserver, "connect_to_new_process", SERVER.connect_to_new_process)
        process.start()
    return process


def rank_main(job_file, environment, seen):
    """Run the trainer's entry as one rank; `seen`: a file that takes the first tokens of every row trained on, if given."""
    os.environ.update(environment, OMP_NUM_THREADS="1")
    log = (job_file.parent / "log.txt").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    from tasks.engines.builtin import __main__ as program
    from tasks.engines.builtin.rows import RowFeed

    if seen is not None:
        original = RowFeed.next

        def recording(feed):
            inputs, targets = original(feed)
            with seen.open("a") as file:
                file.writelines(" ".join(map(str, row)) + "\n" for row in inputs.tolist())
            return inputs, targets

        RowFeed.next = recording
    sys.argv = ["tasks.engines.builtin", str(job_file)]
    os._exit(program.entry())


def start(root, job, seen=None):
    """Start the ranks of a job; `seen`: folder for what each rank reads."""
    folder = root.path(f"runs/{job.run}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)
    job.write(folder / JOB)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = job.experiment.training.gpus
    processes = []
    for rank in range(world):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
        record = seen / f"{world}-{rank}-{time.monotonic_ns()}" if seen else None
        processes.append(fork(rank_main, folder / JOB, environment, record))
    return processes


def finish(root, job, processes, seconds=60):
    """Wait for all ranks; returns their exit codes."""
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"a rank did not end in {seconds} s:\n{log_of(root, job)}")
    return [process.exitcode for process in processes]


def train(root, job, seen=None):
    """Run a job to its end; returns its metrics lines."""
    codes = finish(root, job, start(root, job, seen))
    assert set(codes) == {0}, log_of(root, job)
    return lines_of(root, job)


def lines_of(root, job):
    return read_metrics(root.path(f"runs/{job.run}/metrics.jsonl"))


def losses_of(root, job):
    """Loss of each step."""
    return {line["step"]: line["loss"] for line in lines_of(root, job) if line["kind"] == "train"}


def log_of(root, job):
    path: Path = root.path(f"runs/{job.run}/log.txt")
    return path.read_text() if path.is_file() else ""


def wait_for_step(root, job, step, seconds=60):
    """Until the metrics say that `step` was reached."""
    deadline = time.monotonic() + seconds
    while max(losses_of(root, job), default=0) < step:
        if time.monotonic() > deadline:
            raise AssertionError(f"step {step} was not reached:\n{log_of(root, job)}")
        time.sleep(0.005)
