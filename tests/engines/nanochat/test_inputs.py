"""Artifacts that do not belong together are refused before anything starts."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tasks.engines.nanochat.engine import train
from tasks.engines.nanochat.inputs import open_inputs
from tasks.errors import InputError
from tasks.spec import Experiment, Training
from tasks.store.artifact import MANIFEST, read_manifest
from tasks.store.root import Root


def test_what_belongs_together_opens(root: Root, pool_id: str, arm_id: str) -> None:
    inputs = open_inputs(root, pool_id, arm_id, 64)
    fingerprints = inputs.fingerprints(pool_id, arm_id)
    assert fingerprints["packed"] == root.open(f"arms/{arm_id}/packed/64-crop").fingerprint
    assert (fingerprints["arm"], fingerprints["pool"]) == (arm_id, pool_id)


@pytest.mark.parametrize(
    ("artifact", "name"),
    [("packed", "tokenizer"), ("packed", "text"), ("evaluation", "tokenizer"), ("evaluation", "holdout")],
)
def test_what_was_made_from_something_else_is_named(
    root: Root, pool_id: str, arm_id: str, tmp_path: Path, artifact: str, name: str
) -> None:
    copies = Root(shutil.copytree(root.folder, tmp_path / "copy"))
    place = f"arms/{arm_id}/packed/64-crop" if artifact == "packed" else f"pools/{pool_id}/evaluation"
    manifest = read_manifest(copies.path(place))
    changed = dataclasses.replace(manifest, inputs={**manifest.inputs, name: "0123456789"})
    (copies.path(place) / MANIFEST).write_text(changed.to_json())
    with pytest.raises(InputError, match=f"was made from the {name} 0123456789"):
        open_inputs(copies, pool_id, arm_id, 64)


def test_a_length_that_was_not_packed_is_named(root: Root, pool_id: str, arm_id: str) -> None:
    with pytest.raises(InputError, match="packed/2048-crop"):
        open_inputs(root, pool_id, arm_id, 2048)


def test_a_budget_beyond_the_rows_is_refused_without_a_nanochat(
    root: Root, pool_id: str, arm_id: str, monkeypatch
) -> None:
    monkeypatch.delenv("FABRATING_NANOCHAT_HOME", raising=False)
    training = Training(engine="nanochat", sequence_length=64, tokens=10**9, batch_tokens=512)
    with pytest.raises(InputError, match="take a larger arm"):
        train(root, Experiment(training=training), pool_id, arm_id)
    within = training.model_copy(update={"tokens": 512})
    with pytest.raises(InputError, match="FABRATING_NANOCHAT_HOME is not set"):
        train(root, Experiment(training=within), pool_id, arm_id)
