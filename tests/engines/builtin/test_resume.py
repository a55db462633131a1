"""Runs that are killed, stopped, and gone on with, on one rank and on several: the same rows, the same weights."""

import os
import random
import signal

import numpy as np
import pytest

from tasks.engines.builtin import checkpoint
from tasks.engines.inputs import open_inputs
from tasks.records.job import Job
from tasks.records.packed import choose_rows
from tasks.store.root import Root
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment, write_artifacts
from tests.engines.builtin.ranks import finish, lines_of, log_of, losses_of, start, train, wait_for_step

pytestmark = pytest.mark.slow
ROWS = 160
STEPS = 40


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Artifacts for 40 steps of 4 rows."""
    folder = tmp_path_factory.mktemp("longer")
    write_artifacts(Root(folder), rows=ROWS)
    return folder


def sibling(root, folder):
    """A root with the same artifacts and no runs."""
    own = Root(folder)
    for name in ("pools", "arms"):
        (own.folder / name).symlink_to(root.folder / name)
    return own


@pytest.fixture
def root(longer, tmp_path):
    return sibling(Root(longer), tmp_path / "root")


def make_job(root, **training):
    return Job.of(root, make_experiment(**{"save_every": 7, "eval_every": 15, "keep_last": 2} | training), POOL, ARM)


@pytest.fixture(scope="module")
def uninterrupted(longer, tmp_path_factory):
    """Losses, final weights and scores of a run on one rank that nobody disturbed."""
    root = sibling(Root(longer), tmp_path_factory.mktemp("uninterrupted"))
    job = make_job(root)
    train(root, job)
    return losses_of(root, job), final_weights(root, job), root.open(job.result).facts["bpb"]


def final_weights(root, job):
    found = checkpoint.find(root, job.run, open_inputs(root, job).by_role)
    assert found.step == STEPS
    return {name: tensor.clone().numpy() for name, tensor in found.model().items()}


def rows_seen(folder):
    """Every row that any rank trained on, as text."""
    return [line for path in folder.iterdir() for line in path.read_text().splitlines()]


def rows_taken(root, job, count):
    """The rows that the job's budget takes, as text."""
    packed = root.open(f"arms/{ARM}/packed/{LENGTH}-split")
    table = np.fromfile(packed.path / "rows.bin", dtype="<u2").reshape(ROWS, LENGTH + 1)
    chosen = choose_rows(
        ROWS, count, job.experiment.training, job.experiment.seed, shuffled=job.experiment.arm.order == "shuffled"
    )
    return [" ".join(map(str, row[:-1])) for row in table[chosen].tolist()]


def test_killed_twice_and_bit_identical(root, uninterrupted):
    losses, weights, bpb = uninterrupted
    job = make_job(root)
    for _ in range(2):
        began = max(losses_of(root, job), default=0)
        (process,) = start(root, job)
        wait_for_step(root, job, min(STEPS - 1, began + random.randint(1, STEPS // 2)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    train(root, job)
    assert losses_of(root, job) == losses
    again = final_weights(root, job)
    assert again.keys() == weights.keys()
    for name, tensor in weights.items():
        assert tensor.tobytes() == again[name].tobytes(), name
    assert root.open(job.result).facts["bpb"] == bpb
    steps = [line["step"] for line in lines_of(root, job) if line["kind"] == "eval"]
    assert steps == [15, 30, 40]


@pytest.mark.parametrize("steps", [STEPS, 30])
def test_ranks_may_change_and_no_row_is_read_twice_or_left_out(root, uninterrupted, tmp_path, steps):
    seen = tmp_path / "seen"
    seen.mkdir()
    for world, until in ((1, 11), (2, 21), (4, None)):
        job = make_job(root, gpus=world, **({} if steps == STEPS else {"tokens": steps * 4 * LENGTH}))
        processes = start(root, job, seen)
        if until:
            wait_for_step(root, job, until)
            for process in processes:
                process.terminate()
        assert set(finish(root, job, processes)) == {75 if until else 0}, log_of(root, job)
    assert sorted(rows_seen(seen)) == sorted(rows_taken(root, job, steps * 4))
    if steps < STEPS:
        return
    losses, _, bpb = uninterrupted
    assert losses_of(root, job).keys() == losses.keys()
    assert root.open(job.result).facts["bpb"] == pytest.approx(bpb, abs=1e-3)


def test_two_ranks_equal_one(root, tmp_path):
    alone = sibling(root, tmp_path / "alone")
    one, two = (make_job(place, tokens=20 * 4 * LENGTH, gpus=n) for place, n in ((alone, 1), (root, 2)))
    assert one.run == two.run  # the number of GPUs says how, not what
    train(alone, one)
    train(root, two)
    losses = losses_of(alone, one)
    assert len(losses) == 20
    for step, loss in losses_of(root, two).items():
        assert loss == pytest.approx(losses[step], rel=1e-5), step


def test_two_ranks_killed_and_resumed_are_bit_identical_to_two_ranks(root, tmp_path):
    quiet = sibling(root, tmp_path / "quiet")
    undisturbed = make_job(quiet, gpus=2)
    train(quiet, undisturbed)
    job = make_job(root, gpus=2)
    processes = start(root, job)
    wait_for_step(root, job, random.randint(1, STEPS - 10))
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    finish(root, job, processes)
    train(root, job)
    assert losses_of(root, job) == losses_of(quiet, undisturbed)
    mine, theirs = final_weights(root, job), final_weights(quiet, undisturbed)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)
