"""A run that is finished or interrupted belongs to the rows it was trained on, whatever their name."""

import pytest

from tasks.engines import entry
from tasks.engines.builtin import checkpoint
from tasks.engines.inputs import open_inputs
from tasks.errors import InputError
from tasks.records.job import Job
from tasks.records.layout import PoolFolder, RunFolder
from tasks.store.root import Root
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment, write_artifacts

PACKED = f"arms/{ARM}/packed/{LENGTH}-split"


@pytest.fixture
def root(tmp_path):
    root = Root(tmp_path / "root")
    write_artifacts(root)
    return root


def pack_other_rows(root, job):
    """The same spec, inputs and fingerprint, as by another release of the code."""
    old = root.open(PACKED).manifest
    rows = (root.path(PACKED) / "rows.bin").read_bytes()
    root.remove(PACKED)

    def make(work):
        work.temporary("rows.bin").write_bytes(rows[::-1])
        work.finish("rows.bin")
        work.facts.update(old.facts)

    text, tokenizer = root.find(f"arms/{ARM}/text"), root.find(f"pools/{POOL}/tokenizer")
    new = root.build(PACKED, make, spec=old.spec, inputs={"tokenizer": tokenizer, "text": text}).manifest
    assert new.fingerprint == old.fingerprint and new.content != old.content


def test_a_finished_run_is_not_served_for_other_rows(root):
    experiment = make_experiment()
    job = Job.of(root, experiment, POOL, ARM)
    made = entry.train(root, experiment, POOL, ARM)
    strata = PoolFolder(POOL).strata(experiment.arm.of(experiment.pool).score)
    read = [root.find(n) for n in (PACKED, strata, f"pools/{POOL}/evaluation", f"pools/{POOL}/tokenizer")]
    assert made.manifest.made_from == {each.name: each.content for each in read}
    assert entry.train(root, experiment, POOL, ARM).reused
    scores = entry.score(root, job.run)
    final = root.find(RunFolder(job.run).checkpoint(made.facts["steps"]))
    assert scores.manifest.made_from == {**made.manifest.made_from, final.name: final.content}
    pack_other_rows(root, job)
    with pytest.raises(
        InputError, match=f"{job.result} was made from another {PACKED} .*delete the folder {job.result}"
    ):
        entry.train(root, experiment, POOL, ARM)


def test_a_checkpoint_is_not_resumed_on_other_rows(root):
    job = Job.of(root, make_experiment(), POOL, ARM)
    by_role = open_inputs(root, job).by_role
    checkpoint.build_imported(root, job.run, {}, by_role, step=3, rows=12)
    assert checkpoint.find(root, job.run, by_role).step == 3
    pack_other_rows(root, job)
    with pytest.raises(InputError, match="was trained on other inputs"):
        checkpoint.find(root, job.run, open_inputs(root, job).by_role)
