import pytest
from obstore.store import MemoryStore

from tasks.errors import InputError
from tasks.records import inventory, ledger
from tasks.records.inventory import Thing
from tasks.records.layout import ARMS, POOLS, RUNS, VERDICTS, ArmFolder, PoolFolder, RunFolder
from tasks.reports.report import write_verdict
from tasks.spec import Arm, Experiment
from tasks.store.blobs import Blobs
from tasks.store.root import Root
from tasks.store.urls import parse_url
from tasks.verdict.judge import judge

POOL, ARM = "pool-1111111111", "top16-2222222222"


def artifact(root, name, **inputs):
    def make(work):
        work.temporary("file.txt").write_text(name)
        work.finish("file.txt")
        work.facts.update(documents=3, tokens=9)

    return root.build(name, make, spec={}, inputs=inputs)


def small(root):
    """A pool, an arm of it, and a run of the arm that has a checkpoint and a result. Returns the run's id."""
    for part in PoolFolder(POOL).parts:
        artifact(root, part)
    artifact(root, ArmFolder(ARM).text, pool=POOL)
    artifact(root, ArmFolder(ARM).packed(64, "split"))
    run = ledger.open_entry(root, Experiment(arm=Arm(name="top16")), POOL, ARM).run
    artifact(root, RunFolder(run).checkpoint(5))
    artifact(root, RunFolder(run).result, arm=ARM, pool=POOL)
    return run


@pytest.fixture
def remote(tmp_path):
    """Makes hosts, each with a cache of its own, that share a store."""
    store = MemoryStore()

    def open_root(cache):
        root = Root(tmp_path / cache)
        root.remote = Blobs(parse_url("az://container"), store)
        return root

    return open_root


def test_each_thing_says_what_was_made_from_it(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    made = write_verdict(bench.root, judge(bench.root, "demo", arms))
    run, _ = arms["top16"]
    assert inventory.dependents(bench.root, Thing(RUNS, run)) == [Thing(VERDICTS, made.name.split("/")[1])]


def test_a_thing_is_found_by_a_part_of_its_name_that_no_other_has(tmp_path):
    root = Root(tmp_path)
    run = small(root)
    assert inventory.find(root, "1111111111") == Thing(POOLS, POOL)
    assert inventory.find(root, f"runs/{run}") == inventory.find(root, run[-10:]) == Thing(RUNS, run)
    with pytest.raises(InputError, match=f"fits several .*arms/{ARM}, runs/{run}"):
        inventory.find(root, "top16")
    with pytest.raises(InputError, match=r"no pool, arm, run, verdict or ladder 'nothing'"):
        inventory.find(root, "nothing")


def test_what_hangs_on_a_pool_is_named_down_to_the_runs(tmp_path):
    root = Root(tmp_path)
    run = small(root)
    assert inventory.dependents(root, Thing(POOLS, POOL)) == [Thing(ARMS, ARM), Thing(RUNS, run)]
    assert [row["runs"] for row in inventory.listed(root, ARMS)] == [1]
    assert [row["arms"] for row in inventory.listed(root, POOLS)] == [1]


def test_a_run_that_trains_is_not_removed_nor_what_it_trains_on(tmp_path):
    root = Root(tmp_path)
    run = small(root)
    for thing in (Thing(RUNS, run), Thing(ARMS, ARM), Thing(POOLS, POOL)):
        with pytest.raises(InputError, match=f"in use: the run {run} is running"):
            inventory.remove(root, thing)
    ledger.finish(root, run, "completed", facts={"bpb": 1.0})
    inventory.remove(root, Thing(RUNS, run))
    assert inventory.dependents(root, Thing(ARMS, ARM)) == [] and ledger.entries(root) == []


def test_a_removal_that_is_cut_off_leaves_nothing_that_looks_whole(remote, monkeypatch):
    here = remote("here")
    run = small(here)
    ledger.finish(here, run, "completed", facts={"bpb": 1.0})
    delete, left = here.remote.delete, [1]

    def cut(name):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        delete(name)

    monkeypatch.setattr(here.remote, "delete", cut)
    for allowed in range(1, 20):
        left[0] = allowed
        try:
            inventory.remove(here, Thing(RUNS, run))
            break
        except KeyboardInterrupt:
            there = remote(f"there{allowed}")
        assert ledger.find(there, run) is None, "the entry goes first"
        for name in there.names(RUNS):
            there.open(name, checksums=True)
    assert allowed > 3
    assert not here.remote.list(f"runs/{run}/") and not here.path(f"runs/{run}").exists()
    assert inventory.listed(remote("later"), RUNS) == []
