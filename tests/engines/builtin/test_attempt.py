"""One attempt in a process of its own: how it ends, what it says, what it leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tasks.errors import BusyError
from tasks.records.code import TRAINING_VERSION, commit
from tasks.records.hardware import Hardware, settle
from tasks.records.job import INPUT, Job
from tasks.records.packed import choose_rows
from tasks.records.result import RunFacts
from tasks.records.scaling import ModelShape, parameter_counts
from tasks.spec import Arm
from tasks.store.locks import hold
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment, spoil_weights
from tests.engines.builtin.ranks import finish, log_of, losses_of, start, train, wait_for_step


def make_job(root, **training):
    return Job.of(root, make_experiment(**training), POOL, ARM)


def failure(root, job):
    return json.loads(root.path(f"runs/{job.run}/failure.json").read_text())


def test_a_run_leaves_scores_samples_summary_and_metrics(root):
    job = make_job(root, eval_every=6)
    lines = train(root, job)
    result = root.open(job.result, checksums=True)
    scores = pq.read_table(result.path / "scores.parquet").to_pydict()
    assert result.facts["bpb"] == pytest.approx(sum(scores["nats"]) / (np.log(2) * sum(scores["bytes"])))
    facts = RunFacts.of(result.manifest)
    assert len(facts.bpb_by_decile) == 10
    assert (facts.engine, facts.steps, facts.tokens, facts.rows_left) == ("builtin", 15, 15 * 4 * LENGTH, 0)
    assert (facts.torch, facts.cuda) == (torch.__version__, torch.version.cuda or "none")
    assert (facts.training_version, facts.code_commit) == (TRAINING_VERSION, commit())
    assert facts.tokens_per_second > 0 and 0 < facts.wall_seconds < 60
    assert set(result.manifest.inputs) == {"packed", "tokenizer", "evaluation", "strata", "arm", "pool"}
    assert dict(result.manifest.spec) == job.experiment.identity()
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 16))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [6, 12, 15]
    losses = losses_of(root, job)
    assert losses[15] < losses[1]
    samples = json.loads((result.path / "samples.json").read_text())
    assert len(samples) == 4
    assert all(sample["prompt"] and sample["text"] for sample in samples)
    assert all("<|bos|>" not in sample["text"] for sample in samples)


def test_a_run_of_a_comparison_needs_the_hardware_of_its_first_run(root):
    job = make_job(root).model_copy(update={"comparison": "top-rand"})
    other = Hardware("NVIDIA H100 80GB HBM3", None, None, None)
    settle(root, "top-rand", job.experiment.training, POOL, "top-s1", other)
    assert finish(root, job, start(root, job)) == [INPUT]
    assert "device cpu instead of NVIDIA H100 80GB HBM3" in failure(root, job)["message"]
    assert not root.find(job.result)


def test_rows_beyond_the_budget_are_counted(root):
    job = make_job(root, batch_tokens=7 * LENGTH)
    train(root, job)
    facts = root.open(job.result).facts
    assert (facts["steps"], facts["rows"], facts["rows_left"]) == (8, 56, 4)
    assert (facts["trained_documents"], facts["trained_bytes"]) == (56, 5_600)
    assert facts["text_share"] == pytest.approx(56 / 60)


def test_a_budget_by_ratio_trains_that_many_tokens_a_parameter(root):
    scaling = parameter_counts(ModelShape.of_depth(1, LENGTH, vocab_size=300)).scaling
    train(root, job := make_job(root, tokens_per_parameter=0.005))
    facts = root.open(job.result).facts
    assert facts["tokens"] == int(0.005 * scaling) // (4 * LENGTH) * 4 * LENGTH > 0
    assert facts["rows_left"] == 60 - facts["rows"] > 0


@pytest.mark.parametrize(("budget_from", "mean_score"), [("random", 2.5), ("front", 4.8)])
def test_a_budget_below_the_arm_says_what_it_took(root, budget_from, mean_score):
    job = make_job(root, tokens=20 * LENGTH, budget_from=budget_from)
    train(root, job)
    facts = root.open(job.result).facts
    assert (facts["rows"], facts["rows_left"], facts["trained_documents"]) == (20, 40, 20)
    assert facts["text_share"] == pytest.approx(1 / 3)
    assert facts["arm_mean_score"] == pytest.approx(2.5)
    assert facts["mean_score"] == pytest.approx(mean_score, abs=0.8 if budget_from == "random" else 0.7)


def test_visits_of_several_epochs_are_exact_after_a_kill_and_on_another_number_of_processes(root, tmp_path):
    """Three epochs of 60 rows in 90 steps: killed on one process, resumed and stopped on two, ended on one."""
    arm, seen = Arm(name="arm", order="shuffled", epochs=3), tmp_path / "seen"
    seen.mkdir()
    settings = {"arm": arm, "batch_tokens": 2 * LENGTH, "save_every": 5, "eval_every": 1_000}
    one, two = make_job(root, **settings), make_job(root, **settings, gpus=2)
    assert one.run == two.run
    (process,) = start(root, one, seen)
    wait_for_step(root, one, 12)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    processes = start(root, two, seen)
    wait_for_step(root, two, 50)
    for process in processes:
        process.terminate()
    assert set(finish(root, two, processes)) == {75}, log_of(root, two)
    lines = train(root, one, seen)
    killed, stopped = (2 * line["step"] for line in lines if line.get("event") == "resumed")
    table = np.fromfile(root.path(f"arms/{ARM}/packed/{LENGTH}-split/rows.bin"), "<u2").reshape(60, LENGTH + 1)
    read = table[choose_rows(60, 180, one.experiment.training, 1, shuffled=True, epochs=3)][:, :-1]
    wanted = [" ".join(map(str, row)) for row in read.tolist()]
    logs = sorted(seen.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    first, *both, last = (path.read_text().splitlines() for path in logs)
    assert first[:killed] == wanted[:killed]
    assert sorted([*both[0], *both[1]]) == sorted(wanted[killed:stopped])
    assert last == wanted[stopped:]
    facts = root.open(one.result).facts
    assert (facts["steps"], facts["rows"], facts["rows_left"], facts["epochs"]) == (90, 60, 0, 3)
    assert (facts["trained_documents"], facts["text_share"]) == (60, 1.0)


def test_sigterm_writes_a_checkpoint_and_says_resume_me(root):
    job = make_job(root, batch_tokens=LENGTH, save_every=1000, eval_every=1000)
    (process,) = start(root, job)
    wait_for_step(root, job, 1)
    asked = time.monotonic()
    process.terminate()
    assert finish(root, job, [process]) == [75], log_of(root, job)
    assert time.monotonic() - asked < 30
    stopped = max(losses_of(root, job))
    assert [p.name for p in root.path(f"runs/{job.run}/checkpoints").glob("step_*")] == [f"step_{stopped:06d}"]
    lines = train(root, job)
    resumed = [line for line in lines if line.get("event") == "resumed"]
    assert [line["step"] for line in resumed] == [stopped]
    assert sorted(losses_of(root, job)) == list(range(1, 61))


def test_a_loss_that_is_no_number_names_step_rows_and_checkpoint(root):
    """A weight of a checkpoint that is no number stands for any divergence."""
    job = make_job(root, batch_tokens=LENGTH)
    processes = start(root, job)
    wait_for_step(root, job, 1)
    processes[0].terminate()
    assert finish(root, job, processes) == [75]
    folder = sorted(root.path(f"runs/{job.run}/checkpoints").glob("step_*"))[-1]
    step = int(folder.name[5:])
    spoil_weights(folder)
    assert finish(root, job, start(root, job)) == [1]
    message = failure(root, job)["message"]
    assert f"The loss of step {step + 1} is nan" in message
    assert f"rows {step} to {step} " in message
    assert f"that of step {step}" in message
    assert max(losses_of(root, job)) == step


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"batch_tokens": 100}, "batch_tokens 100 is not a multiple"),
        ({"batch_tokens": 61 * LENGTH}, "does not fill one batch"),
        ({"tokens": 61 * LENGTH}, "the arm has 60"),
        ({"precision": "bf16"}, "precision=bf16 needs a GPU"),
        ({"precision": "fp8"}, "precision=fp8 needs a GPU"),
        ({"micro_batch": 3}, "micro_batch is 3, which does not divide the 4 rows"),
        ({"engine": "nanochat"}, "engine is nanochat"),
        ({"device": "cuda"}, "device is cuda, but PyTorch finds no GPU"),
        ({"sequence_length": 64}, "no complete artifact arms/arm-0123456789/packed/64-split"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(root, training, sentence):
    job = make_job(root, **training)
    assert finish(root, job, start(root, job)) == [65], log_of(root, job)
    told = failure(root, job)
    assert told["status"] == 65
    assert sentence in told["message"]
    assert told["message"].count("\n") == 0
    assert not list(root.path(f"runs/{job.run}").glob("checkpoints/step_*"))


def test_a_batch_that_two_processes_cannot_share_is_refused(root):
    job = make_job(root, gpus=2, batch_tokens=3 * LENGTH)
    assert set(finish(root, job, start(root, job))) == {65}
    assert "which 2 processes cannot share equally: set batch_tokens to 64" in failure(root, job)["message"]


TAKE = """
import os, pathlib, sys
from tasks.store.locks import hold
taken = hold(pathlib.Path(sys.argv[1]), "The run a", sys.argv[2], 0.0)
taken.__enter__()
os.kill(os.getpid(), 9)
"""


def take_and_die(path, run):
    """Another process that takes the lock and is killed holding it."""
    return subprocess.run([sys.executable, "-c", TAKE, str(path), run], capture_output=True, text=True)


def test_one_trainer_per_run(tmp_path):
    with hold(tmp_path / "x.lock", "The run a", "a"):
        refused = take_and_die(tmp_path / "x.lock", "b")
        assert f"BusyError: The run a is in use by run a (process {os.getpid()} on" in refused.stderr
        assert refused.returncode == 1


def test_a_lock_of_a_dead_process_is_free(tmp_path):
    assert take_and_die(tmp_path / "x.lock", "b").returncode == -signal.SIGKILL
    with hold(tmp_path / "x.lock", "what", "c", 0.0):
        assert json.loads((tmp_path / "x.lock").read_text())["run"] == "c"


def test_a_busy_lock_waits_for_its_holder(tmp_path):
    first = hold(tmp_path / "x.lock", "what", "a")
    first.__enter__()
    with pytest.raises(BusyError), hold(tmp_path / "x.lock", "what", "b", 0.0):
        pass
    first.__exit__(None, None, None)
