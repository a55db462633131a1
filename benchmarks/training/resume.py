"""Are the weights of a killed and resumed training those of an undisturbed one, bit for bit, on this GPU?

The trainer's own entry (`python -m tasks.engines.builtin JOB`) runs in a process of its own on packed bytes of FabRating's source, is killed
with SIGKILL at random moments and started again. An undisturbed run of the same job is the reference. A third one, with the
default attention, says what `deterministic` costs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tasks.engines.builtin import checkpoint
from tasks.engines.inputs import open_inputs
from tasks.hosts.smoke import ARM, POOL, VOCABULARY, build_inputs
from tasks.records.job import Job
from tasks.records.layout import JOB, LOG, METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.root import Root

START_SECONDS = 240.0
"""The longest that a start may take before it counts as failed."""


def make_job(root: Root, arguments: argparse.Namespace, deterministic: bool) -> Job:
    """A training on all rows of the arm."""
    training = Training(
        depth=arguments.depth,
        sequence_length=arguments.sequence_length,
        window_pattern=arguments.window_pattern,
        batch_tokens=arguments.batch_tokens,
        precision=arguments.precision,
        save_every=arguments.save_every,
        eval_every=10**6,
        device="cuda",
        deterministic=deterministic,
        wandb="disabled",
    )
    experiment = Experiment(pool=Pool(name="resume", vocab_size=VOCABULARY), arm=Arm(name="resume"), training=training)
    job = Job.of(root, experiment, POOL, ARM)
    root.path(RunFolder(job.run).folder).mkdir(parents=True, exist_ok=True)
    job.write(root.path(RunFolder(job.run).file(JOB)))
    return job


def start(root: Root, job: Job) -> subprocess.Popen[bytes]:
    """The trainer's entry, its log beside the job."""
    folder = root.path(RunFolder(job.run).folder)
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.engines.builtin", str(folder / JOB)], stdout=log, stderr=log
        )


def finish(root: Root, job: Job, process: subprocess.Popen[bytes]) -> None:
    """Wait for the end. Exits with the log's end when it failed."""
    if process.wait():
        log = root.path(RunFolder(job.run).file(LOG)).read_text()
        raise SystemExit(f"the trainer ended with status {process.returncode}:\n{log[-3000:]}")


def lines_of(root: Root, job: Job) -> list[dict]:
    return read_metrics(root.path(RunFolder(job.run).file(METRICS)))


def losses_of(root: Root, job: Job) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines_of(root, job) if line["kind"] == "train"}


def saved(root: Root, job: Job) -> int:
    """The step of the newest whole checkpoint, 0 without one."""
    return max(checkpoint.steps_of(root.names(RunFolder(job.run).checkpoints)), default=0)


def kill_after(root: Root, job: Job, step: int) -> int:
    """Start, wait for a checkpoint later than that of `step` and a random moment longer, kill. Returns the last step told."""
    process = start(root, job)
    deadline = time.monotonic() + START_SECONDS
    while saved(root, job) <= step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 1.5))
    if process.poll() is not None:
        finish(root, job, process)
        raise SystemExit(f"the training was over before it could be killed after step {step}: take more steps")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return max(losses_of(root, job), default=0)


def bits_of(root: Root, job: Job) -> dict[str, torch.Tensor]:
    """Everything that the last checkpoint holds: weights, optimizer, fp8 scales."""
    found = checkpoint.find(root, job.run, open_inputs(root, job).by_role)
    if found is None:
        raise SystemExit(f"the run {job.run} left no checkpoint")
    held = {f"model/{name}": tensor for name, tensor in found.model().items()}
    for shard in found.shards():
        for section in ("optimizer", "compute"):
            held |= {f"{section}/{name}": tensor for name, tensor in shard[section].items()}
    return held


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits."""
    if one.keys() != other.keys():
        return sorted(one.keys() ^ other.keys())
    return [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]


def speed_of(root: Root, job: Job) -> float:
    """Median tokens per second."""
    rates = sorted(line["tokens_per_second"] for line in lines_of(root, job) if "tokens_per_second" in line)
    return rates[len(rates) // 2]


def main(arguments: argparse.Namespace) -> None:
    """Print what was killed when, and whether the bits agree; exit status 1 when they do not."""
    rows = arguments.steps * arguments.batch_tokens // arguments.sequence_length
    print(f"{torch.cuda.get_device_name()}, d{arguments.depth}, {arguments.precision}, T={arguments.sequence_length}, "
          f"{arguments.steps} steps of {arguments.batch_tokens:,} tokens, a checkpoint every {arguments.save_every}", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: Root(Path(folder) / name) for name in ("undisturbed", "killed", "default")}
        for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            os.environ[variable] = f"{folder}/{variable}"  # compile once, for all
        for root in roots.values():
            build_inputs(root, rows, arguments.sequence_length)
        jobs = {name: make_job(root, arguments, name != "default") for name, root in roots.items()}

        for name in ("default", "undisturbed"):
            finish(roots[name], jobs[name], start(roots[name], jobs[name]))
            print(f"  {name:12} {speed_of(roots[name], jobs[name]):9,.0f} tokens/s", flush=True)
        root, job = roots["killed"], jobs["killed"]
        for _ in range(arguments.kills):
            told = kill_after(root, job, saved(root, job))
            print(
                f"  killed after it told of step {told}; the newest whole checkpoint is of {saved(root, job)}",
                flush=True,
            )
        finish(root, job, start(root, job))
        wanted, got = bits_of(roots["undisturbed"], jobs["undisturbed"]), bits_of(root, job)
        wrong = differing(wanted, got)
        same_losses = losses_of(roots["undisturbed"], jobs["undisturbed"]) == losses_of(root, job)
        print(f"  {len(wanted)} tensors of weights, optimizer and scales, "
              f"{sum(tensor.numel() for tensor in wanted.values()):,} numbers: {len(wrong)} differ from the undisturbed run; "
              f"losses of all steps are {'equal' if same_losses else 'NOT equal'}")  # fmt: skip
    if wrong or not same_losses:
        raise SystemExit(f"NOT bit-identical: {', '.join(wrong[:5])}")
