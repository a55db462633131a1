"""The versions of the code are a part of names: what another version would make differently is not reused."""

import pytest

from tasks.records import code
from tasks.records.code import Code
from tasks.records.layout import arm_id, pool_id, run_id
from tasks.spec import Arm, Experiment, Pool
from tasks.store.blobs import Blob


def names():
    """Ids of a pool, an arm of it and a run on it."""
    pool = pool_id(Pool(), [Blob("a.parquet", 10, "e1")])
    arm = arm_id(Arm(), Pool(), pool)
    return pool, arm, run_id(Experiment(), arm)


@pytest.mark.parametrize(
    ("version", "renamed"), [("PREPARATION_VERSION", [True, True, True]), ("TRAINING_VERSION", [False, False, True])]
)
def test_a_raised_version_renames_what_it_would_make_differently(monkeypatch, version, renamed):
    before = names()
    assert names() == before
    monkeypatch.setattr(code, version, getattr(code, version) + 1)
    assert [a != b for a, b in zip(before, names(), strict=True)] == renamed


def test_a_commit_renames_nothing(monkeypatch):
    before = names()
    monkeypatch.setattr(code, "commit", lambda: "0123456789")
    assert Code.of_this_process().commit == "0123456789" and names() == before


def test_a_process_knows_its_own_code():
    here = Code.of_this_process()
    assert (here.preparation_version, here.training_version) == (code.PREPARATION_VERSION, code.TRAINING_VERSION)
