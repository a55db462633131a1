"""Runs of several plans in one batch: each uses the cores that its own plan says."""

import os
import time
from types import SimpleNamespace

import pytest

from flows import comparison
from flows.comparison import Hands
from flows.sequence import Steps
from tasks.cores import WORKERS, cores
from tasks.engines import shared
from tasks.errors import InputError
from tasks.spec import Training
from tasks.store.root import Root


def test_runs_that_are_at_work_together_use_as_many_cores_and_leave_the_environment_as_it_was(monkeypatch, tmp_path):
    used = []

    def train(root, arm_id, training, seed, *_, **__):
        before = cores()
        time.sleep(0.02)  # the others begin
        used.append((training.workers, before, cores()))

    monkeypatch.setattr(shared, "visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(comparison, "train_arm", train)
    monkeypatch.delenv(WORKERS, raising=False)
    plan = SimpleNamespace(spec=SimpleNamespace(alike="x", core=False))
    runs = [
        (
            plan,
            SimpleNamespace(
                experiment=SimpleNamespace(training=Training(workers=workers), seed=1, held=()), arm_id="a"
            ),
        )
        for workers in (None, None, 3, 3, 3, 5, 5)
    ]
    Hands(Root(tmp_path), Steps()).train(runs)
    assert len(used) == len(runs) and all(before == after == (asked or cores()) for asked, before, after in used)
    assert WORKERS not in os.environ


def test_core_whose_questions_are_not_here_is_refused_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setenv("FABRATING_CORE_BUNDLE", str(tmp_path / "nowhere"))
    monkeypatch.setattr(comparison, "train_arm", lambda *_, **__: pytest.fail("a run was trained"))
    experiment = SimpleNamespace(training=Training(), seed=1, held=())
    plan = SimpleNamespace(spec=SimpleNamespace(alike="x", core=True))
    with pytest.raises(InputError, match=r"evaluation bundle is not in .*nowhere"):
        Hands(Root(tmp_path), Steps()).train([(plan, SimpleNamespace(experiment=experiment, arm_id="a"))])
