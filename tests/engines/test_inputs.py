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

PACKED, TEXT, EVALUATION = f"arms/{ARM}/packed/{LENGTH}-split", f"arms/{ARM}/text", f"pools/{POOL}/evaluation"
TOKENIZER, HOLDOUT = f"pools/{POOL}/tokenizer", f"pools/{POOL}/holdout"
OTHER = "0" * 64


@pytest.fixture
def root(tmp_path):
    root = Root(tmp_path / "root")
    write_artifacts(root)
    return root


def make_job(root, **training):
    return Job.of(root, make_experiment(**training), POOL, ARM)


def rewrite(root, name, **changes):
    """Change an artifact's manifest where it lies."""
    changed = dataclasses.replace(read_manifest(root.path(name)), **changes)
    (root.path(name) / MANIFEST).write_text(changed.to_json())


def test_what_belongs_together_opens(root):
    by_role = open_inputs(root, make_job(root)).by_role
    assert by_role["packed"] == root.open(PACKED).manifest
    assert (by_role["arm"], by_role["pool"]) == (ARM, POOL)


@pytest.mark.parametrize(
    ("name", "source"),
    [(PACKED, TOKENIZER), (PACKED, TEXT), (TEXT, HOLDOUT), (EVALUATION, TOKENIZER), (EVALUATION, HOLDOUT)],
)
def test_what_was_made_from_something_else_is_named(root, name, source):
    rewrite(root, name, made_from={**root.find(name).made_from, source: OTHER})
    refused = TEXT if source == HOLDOUT else name
    with pytest.raises(
        InputError, match=f"{refused} was made from another {source} .*: delete the folder {refused} and run again"
    ):
        open_inputs(root, make_job(root))


@pytest.mark.parametrize(("name", "source"), [(PACKED, TOKENIZER), (TEXT, HOLDOUT), (EVALUATION, TOKENIZER)])
def test_what_was_made_before_contents_were_recorded_is_refused_by_name(root, name, source):
    rewrite(root, name, made_from=None)
    with pytest.raises(InputError, match=f"{name} does not record the {source} .*delete the folder {name}"):
        open_inputs(root, make_job(root))


def test_a_text_or_a_length_that_is_missing_is_named(root):
    with pytest.raises(InputError, match="packed/2048-split"):
        open_inputs(root, make_job(root, sequence_length=2048))
    shutil.rmtree(root.path(TEXT))
    with pytest.raises(InputError, match=f"no {TEXT} .*: prepare the arm"):
        open_inputs(root, make_job(root))
