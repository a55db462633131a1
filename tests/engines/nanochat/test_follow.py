"""How the launcher follows output, told by replaying real lines of nanochat's log from a small process."""

import sys
from pathlib import Path

import pytest

from tasks.engines.entry import train
from tasks.engines.inputs import open_inputs
from tasks.engines.nanochat import watch
from tasks.engines.nanochat.check import Identity
from tasks.engines.nanochat.contract import PINNED
from tasks.engines.nanochat.engine import Attempt
from tasks.engines.nanochat.environment import Environment
from tasks.engines.nanochat.plan import plan_run
from tasks.errors import DiskError, InputError, InterruptedRun, LostProcessError, TrainingError
from tasks.progress import silent
from tasks.records.job import Job
from tasks.records.layout import METRICS, ArmFolder, RunFolder
from tasks.records.metrics import read_metrics
from tasks.spec import Experiment, Training
from tasks.store.root import Root

STEP = (
    "step {:05d}/00008 (12.50%) | loss: {} | lrm: 0.05 | dt: 78.83ms | tok/sec: 6,495 | bf16_mfu: 0.00 "
    "| epoch: 1 pq: 3 rg: 0 | total time: 0.00m"
)
SAVED = 'fabrating: {{"event": "saved", "step": {}}}'


@pytest.fixture
def follow(root: Root, pool_id: str, arm_id: str, tmp_path: Path):
    """Follow a process that prints lines, then does what `end` says; returns the metrics."""

    def run(lines: list[str], end: str = "") -> list[dict]:
        (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
        script = tmp_path / "python"
        program = f"import os, signal, sys, time\nprint(open({str(tmp_path / 'lines.txt')!r}).read(), end='', flush=True)\n{end}"
        (tmp_path / "program.py").write_text(f"{program}\n")
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/program.py"\n')  # a path may hold a space
        script.chmod(0o755)
        rows = root.find(ArmFolder(arm_id).packed(64, "crop")).facts["rows"]
        batch = rows // 8 * 64  # the whole arm in 8 steps
        training = Training(
            engine="nanochat", packing="crop", depth=2, sequence_length=64, batch_tokens=batch, device="cpu"
        )
        job = Job.of(root, Experiment(training=training), pool_id, arm_id)
        inputs = open_inputs(root, job)
        environment = Environment(tmp_path, script, Identity(None, PINNED.code, PINNED), "2.9.1", ())
        plan = plan_run(training, inputs.packed.facts["rows"], 512, ())
        attempt = Attempt(root, job, inputs, environment, (), plan, silent)
        attempt.prepare()
        try:
            attempt.follow([])
        finally:
            run.metrics = read_metrics(root.path(RunFolder(job.run).file(METRICS)))
        return run.metrics

    return run


def test_a_run_that_ends_well(follow) -> None:
    lines = follow([STEP.format(0, 6.2), "some warning", STEP.format(1, 6.1), "Step 00002 | Validation bpb: 4.771652"])
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("event", 0),
        ("train", 1),
        ("train", 2),
        ("eval", 2),
        ("event", 8),
    ]


def test_a_loss_that_is_no_number_stops_the_run(follow) -> None:
    lines = [STEP.format(0, 6.2), SAVED.format(1), STEP.format(1, "nan"), STEP.format(2, "nan")]
    with pytest.raises(TrainingError, match=r"is nan after step 2; the last checkpoint is that of step 1\."):
        follow(lines, "time.sleep(60)")
    assert [line["step"] for line in follow.metrics if line["kind"] == "train"] == [1]


def test_a_failure_is_told_with_its_last_words(follow) -> None:
    with pytest.raises(TrainingError, match=r"status 1 \(torch\.OutOfMemoryError: 2 GiB\); there is no checkpoint yet"):
        follow([STEP.format(0, 6.2)], "sys.exit('torch.OutOfMemoryError: 2 GiB')")
    with pytest.raises(DiskError, match=r"No space left on device\); there is no checkpoint yet: free space for /"):
        follow([STEP.format(0, 6.2)], "sys.exit('OSError: [Errno 28] No space left on device')")


def test_a_kill_and_a_request_to_stop_are_told_apart(follow) -> None:
    with pytest.raises(LostProcessError, match="killed by signal 9"):
        follow([SAVED.format(3)], "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InterruptedRun, match="checkpoint is that of step 3"):
        follow([SAVED.format(3)], "sys.exit(75)")


def test_a_silence_stops_the_run(follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LEAST", 1.0)
    monkeypatch.setattr("tasks.engines.nanochat.engine.WATCH_SECONDS", 0.5)
    lines = [STEP.format(step, 6.2) for step in range(4)]
    with pytest.raises(
        TrainingError, match=r"hangs: nothing for [1-9]\d* s where a step takes 0\.1 s; rank 0 is in naps"
    ):
        follow(lines, "import faulthandler; faulthandler.register(signal.SIGUSR1)\ndef naps(): time.sleep(60)\nnaps()")


def test_a_budget_beyond_the_rows_is_refused_without_a_nanochat(
    root: Root, pool_id: str, arm_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FABRATING_NANOCHAT_HOME", raising=False)
    training = Training(engine="nanochat", packing="crop", sequence_length=64, tokens=10**9, batch_tokens=512)
    with pytest.raises(InputError, match="take a larger arm"):
        train(root, Experiment(training=training), pool_id, arm_id)
    within = training.model_copy(update={"tokens": None})
    with pytest.raises(InputError, match="FABRATING_NANOCHAT_HOME is not set"):
        train(root, Experiment(training=within), pool_id, arm_id)
