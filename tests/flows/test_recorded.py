"""The ledger's entry around a training."""

import os
import time
from pathlib import Path

import pytest

from flows.recorded import recorded
from tasks.errors import BusyError, InterruptedRun
from tasks.records import ledger
from tasks.records.inventory import Thing, find
from tasks.records.layout import run_id
from tasks.records.ledger import LedgerEntry
from tasks.spec import Arm, Experiment, Training
from tasks.store.access import open_blobs
from tasks.store.root import Root

EXPERIMENT = Experiment(arm=Arm(name="top16"), training=Training(wandb="disabled"))
ARM, POOL = "top16-1", "pool-1"
RUN = run_id(EXPERIMENT, ARM)


def attempts(root: Root) -> list[str]:
    return [attempt.state for attempt in ledger.find(root, RUN).attempts]


def test_a_complete_run_is_not_attempted_again(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with pytest.raises(RuntimeError), recorded(root, EXPERIMENT, POOL, ARM):
        raise RuntimeError("the disk is gone")
    assert attempts(root) == ["failed"]

    def train() -> dict:
        with recorded(root, EXPERIMENT, POOL, ARM) as facts:
            result = root.build(f"runs/{RUN}/result", lambda work: work.facts.update(bpb=1.5), spec={})
            facts |= result.facts
        return facts

    assert train()["bpb"] == 1.5
    assert attempts(root) == ["failed", "completed"]
    assert train()["bpb"] == 1.5
    assert attempts(root) == ["failed", "completed"]
    # damaged and set aside: that is work again
    (root.path(f"runs/{RUN}/result") / "manifest.json").unlink()
    train()
    assert attempts(root) == ["failed", "completed", "completed"]


def test_an_attempt_that_is_stopped_after_its_result_is_completed(tmp_path: Path) -> None:
    root = Root(tmp_path)

    def stopped() -> None:
        with pytest.raises(KeyboardInterrupt), recorded(root, EXPERIMENT, POOL, ARM):
            root.build(f"runs/{RUN}/result", lambda work: work.facts.update(bpb=1.5, steps=9), spec={})
            raise KeyboardInterrupt

    stopped()
    noted = LedgerEntry.parse((root.path(f"runs/{RUN}") / "run.json").read_bytes(), tmp_path, "")
    assert (noted.state, noted.error, noted.bpb, noted.step) == ("completed", None, 1.5, 9)
    assert [(attempt.state, attempt.error) for attempt in noted.attempts] == [("completed", None)]
    stopped()
    assert attempts(root) == ["completed"]  # there was nothing left to attempt


def test_a_result_that_waits_for_its_upload_completes_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    root = Root(tmp_path / "here")
    with pytest.raises(InterruptedRun), recorded(root, EXPERIMENT, POOL, ARM):
        root.build(f"runs/{RUN}/result", lambda work: work.facts.update(bpb=1.5), spec={})
        root.remote = open_blobs((tmp_path / "store").as_uri())
        raise InterruptedRun("in the middle of the upload")
    assert attempts(root) == ["interrupted"]
    root.mirror(f"runs/{RUN}/result")  # by one that is killed before its note
    assert attempts(root) == ["completed"]


def test_a_second_start_that_is_refused_leaves_the_living_attempt_as_it_was(tmp_path: Path) -> None:
    root, child = Root(tmp_path), os.fork()
    if child == 0:  # the attempt that lives
        ledger.open_entry(root, EXPERIMENT, POOL, ARM)
        time.sleep(60)
    try:
        while ledger.find(root, RUN) is None:
            time.sleep(0.05)
        before = ledger.find(root, RUN)
        with pytest.raises(BusyError), recorded(root, EXPERIMENT, POOL, ARM):
            raise BusyError("The run is in use by process 7 on gpu1")
        after = ledger.find(root, RUN)
        assert (after.state, after.error, after.attempts) == ("running", None, before.attempts)
        assert after.hours >= before.hours
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_who_asks_for_a_run_that_is_trained_waits_for_it_and_attempts_nothing(tmp_path: Path) -> None:
    """As when a comparison is launched twice: hours, dollars and W&B would have the run twice."""
    root, child = Root(tmp_path), os.fork()
    if child == 0:
        try:
            with recorded(root, EXPERIMENT, POOL, ARM):
                time.sleep(1)
                root.build(f"runs/{RUN}/result", lambda work: None, spec={})
        finally:
            os._exit(0)
    while ledger.find(root, RUN) is None:
        time.sleep(0.01)
    with recorded(root, EXPERIMENT, POOL, ARM):
        pass
    os.waitpid(child, 0)
    (attempt,) = ledger.find(root, RUN).attempts
    assert (attempt.state, attempt.pid) == ("completed", child)


def test_a_name_is_kept_given_later_too_and_changes_no_identity(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with recorded(root, EXPERIMENT, POOL, ARM, name="First try: sharp", comparison="top-vs-rand"):
        root.build(f"runs/{RUN}/result", lambda work: None, spec={})
    entry = ledger.find(root, RUN)
    assert (entry.run, entry.name, entry.comparison) == (RUN, "First try: sharp", "top-vs-rand")
    for name, shown in ((None, "First try: sharp"), ("the good one", "the good one")):
        with recorded(root, EXPERIMENT, POOL, ARM, name=name):
            pass
        assert ledger.find(root, RUN).name == shown
    assert len(ledger.find(root, RUN).attempts) == 1
    assert find(root, "the good one") == Thing("runs", RUN)
