"""Removing an artifact: here and in a remote root, the manifest first."""

import obstore
from obstore.store import LocalStore

from tasks.store.blobs import Blobs
from tasks.store.root import Root
from tasks.store.urls import parse_url


def build(root, name):
    def make(work):
        for file in ("a.bin", "folder/b.bin"):
            work.temporary(file).write_bytes(b"content")
            work.finish(file)

    return root.build(name, make, spec={"x": 1})


def test_remove_deletes_the_directory(tmp_path):
    root = Root(tmp_path / "root")
    artifact = build(root, "runs/r/checkpoints/step_000001")
    root.remove(artifact.name)
    assert root.find(artifact.name) is None
    assert not artifact.path.exists()


def test_remove_deletes_the_remote_copy(tmp_path):
    root = Root(tmp_path / "cache")
    (tmp_path / "remote").mkdir()
    root.remote = Blobs(parse_url("az://c/p"), LocalStore(tmp_path / "remote"))
    artifact = build(root, "runs/r/checkpoints/step_000001")
    other = build(root, "runs/r/checkpoints/step_000002")
    root.remove(artifact.name)
    assert root.find(artifact.name) is None
    left = {item["path"] for page in obstore.list(LocalStore(tmp_path / "remote")) for item in page}
    assert left == {f"{other.name}/{file}" for file in ("a.bin", "folder/b.bin", "manifest.json")}


def test_remove_of_nothing_is_no_error(tmp_path):
    Root(tmp_path / "root").remove("runs/none/checkpoints/step_000001")
