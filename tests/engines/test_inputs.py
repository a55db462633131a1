"""Artifacts that do not belong together are refused before anything starts."""

import dataclasses
import shutil

import pytest

from tasks.engines.inputs import open_inputs
from tasks.errors import InputError
from tasks.records.job import Job
from tasks.store.artifact import MANIFEST, read_manifest
from tasks.store.root import Root
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment, write_artifacts


@pytest.fixture
def root(tmp_path):
    root = Root(tmp_path / "root")
    write_artifacts(root)
    return root


def make_job(root, **training):
    return Job.of(root, make_experiment(**training), POOL, ARM)


def test_what_belongs_together_opens(root):
    inputs = open_inputs(root, make_job(root))
    assert inputs.fingerprints["packed"] == root.open(f"arms/{ARM}/packed/{LENGTH}-split").fingerprint
    assert (inputs.fingerprints["arm"], inputs.fingerprints["pool"]) == (ARM, POOL)


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        (f"arms/{ARM}/packed/{LENGTH}-split", {"tokenizer": "0" * 10}, "tokenizer"),
        (f"arms/{ARM}/packed/{LENGTH}-split", {"text": "0" * 10}, "text"),
        (f"arms/{ARM}/packed/{LENGTH}-split", {"tokenizer": None}, "tokenizer"),
        (f"arms/{ARM}/text", {"holdout": "0" * 10}, "holdout"),
        (f"pools/{POOL}/evaluation", {"tokenizer": "0" * 10}, "tokenizer"),
        (f"pools/{POOL}/evaluation", {"holdout": None}, "holdout"),
    ],
)
def test_what_was_made_from_something_else_is_named(root, name, changes, kind):
    manifest = read_manifest(root.path(name))
    changed = dataclasses.replace(manifest, inputs=dict(manifest.inputs) | changes)
    (root.path(name) / MANIFEST).write_text(changed.to_json())
    with pytest.raises(InputError, match=f"was made from another {kind}"):
        open_inputs(root, make_job(root))


def test_a_text_or_a_length_that_is_missing_is_named(root):
    with pytest.raises(InputError, match="packed/2048-split"):
        open_inputs(root, make_job(root, sequence_length=2048))
    shutil.rmtree(root.path(f"arms/{ARM}/text"))
    with pytest.raises(InputError, match=f"no arms/{ARM}/text .*: prepare the arm"):
        open_inputs(root, make_job(root))
