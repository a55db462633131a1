"""Checkpoints: whole or passed over, kept and dropped by the rule, mirrored while training goes on."""

import json
import logging
import os
import pickle
import resource
import shutil
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore

from tasks.engines.builtin.checkpoint import Checkpoints, find, load_tensors, stale
from tasks.errors import DamagedError, DiskError, InputError, StoreError, TrainingError
from tasks.store.blobs import Blobs
from tasks.store.root import Root
from tasks.store.urls import parse_url

RUN = "arm-d1-s1-0123456789"
INPUTS = {"packed": "p", "evaluation": "e"}
FILES = ["model.pt", "optimizer_00.pt", "state.json", "manifest.json"]


def tensors(step):
    return {"w": torch.full((4, 3), float(step)), "e": torch.full((5,), float(step), dtype=torch.bfloat16)}


def shard(step):
    return {"optimizer": {"exp_avg/w": torch.full((4, 3), step / 10)}, "random": {"cpu": torch.get_rng_state()}}


def write(root, *steps, **options):
    """Save checkpoints of the given steps, one after the other."""
    checkpoints = Checkpoints(root, RUN, INPUTS, "attempt", **options)
    for step in steps:
        checkpoints.save(tensors(step), shard(step), {"step": step, "rows": step * 4})
    checkpoints.close()
    return checkpoints


def steps_here(root):
    return sorted(int(p.name[5:]) for p in root.path(f"runs/{RUN}/checkpoints").glob("step_*"))


@pytest.fixture
def local(tmp_path):
    return Root(tmp_path / "root")


@pytest.fixture
def remote(tmp_path):
    """A root whose artifacts are mirrored to a store, as to a container."""
    root = Root(tmp_path / "cache")
    (tmp_path / "container").mkdir()
    root.remote = Blobs(parse_url("az://container"), LocalStore(tmp_path / "container"))
    return root


def test_what_is_saved_is_found(local):
    write(local, 3, 6)
    found = find(local, RUN, INPUTS)
    assert found.step == 6
    assert found.state == {"step": 6, "rows": 24, "ranks": 1}
    assert torch.equal(found.model()["w"], tensors(6)["w"])
    assert found.model()["e"].dtype == torch.bfloat16
    assert torch.equal(found.shards()[0]["optimizer"]["exp_avg/w"], shard(6)["optimizer"]["exp_avg/w"])


def test_a_certain_step_is_found(local):
    write(local, 3, 6)
    assert find(local, RUN, INPUTS, step=3).step == 3
    with pytest.raises(InputError, match="no checkpoint of step 4: choose one of 3, 6"):
        find(local, RUN, INPUTS, step=4)


def test_none_is_found_where_there_is_none(local):
    assert find(local, RUN, INPUTS) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "removed", "emptied"])
def test_a_damaged_file_is_named_and_the_older_checkpoint_taken(local, caplog, name, damage):
    write(local, 3, 6)
    path = local.path(f"runs/{RUN}/checkpoints/step_000006/{name}")
    content = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    else:
        if damage == "flipped":
            content[len(content) // 2] ^= 0x40
        path.write_bytes(content[: {"truncated": len(content) // 2, "flipped": None, "emptied": 0}[damage]])
    with caplog.at_level(logging.WARNING):
        assert find(local, RUN, INPUTS).step == 3
    assert "step_000006" in caplog.text
    write(local, 6)  # the step can be trained and saved again
    assert find(local, RUN, INPUTS).step == 6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_no_prefix_of_a_file_passes_for_whole(tmp_path_factory, cut, data):
    local = Root(tmp_path_factory.mktemp("root"))
    write(local, 3)
    name = data.draw(st.sampled_from(FILES))
    path = local.path(f"runs/{RUN}/checkpoints/step_000003/{name}")
    content = path.read_bytes()
    path.write_bytes(content[: cut % (len(content) - 1)])  # without its last newline a manifest is still whole
    assert find(local, RUN, INPUTS) is None


def test_a_checkpoint_of_other_inputs_is_refused(local):
    write(local, 3)
    with pytest.raises(InputError, match="other inputs"):
        find(local, RUN, INPUTS | {"packed": "another"})


def test_a_torn_attempt_leaves_nothing_that_counts(local):
    write(local, 3)
    torn = local.path(f"runs/{RUN}/checkpoints/.step_000006.killed.partial")
    torn.mkdir()
    (torn / "model.pt").write_bytes(b"half")
    assert find(local, RUN, INPUTS).step == 3
    Checkpoints(local, RUN, INPUTS, "next").close()
    assert not torn.exists()


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_no_code_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Hostile()}, "model.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"w": Hostile()}))
    for name in ("model.pt", "plain.pt"):
        with pytest.raises(DamagedError, match=name):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@given(st.sets(st.integers(1, 500)), st.integers(1, 6), st.none() | st.integers(1, 50))
def test_the_last_k_and_every_mth_are_kept(steps, last, every):
    gone = stale(list(steps), last, every)
    kept = steps - set(gone)
    assert set(sorted(steps)[-last:]) <= kept
    assert all(step in kept for step in steps if every and step % every == 0)
    assert len(kept) <= last + sum(1 for step in steps if every and step % every == 0)


def test_old_checkpoints_are_dropped(local):
    write(local, 10, 20, 30, 40, 50, keep_last=2, keep_every=20)
    assert steps_here(local) == [20, 40, 50]


def test_checkpoints_are_mirrored_and_fetched_on_another_machine(remote, tmp_path):
    metrics = remote.path(f"runs/{RUN}/metrics.jsonl")
    metrics.parent.mkdir(parents=True)
    metrics.write_text("{}\n")
    write(remote, 3, 6, 9, keep_last=2, mirrored=(metrics,))
    elsewhere = Root(tmp_path / "elsewhere")
    elsewhere.remote = remote.remote
    assert [name[-1] for name in elsewhere.names(f"runs/{RUN}/checkpoints")] == ["6", "9"]
    assert find(elsewhere, RUN, INPUTS).step == 9
    assert torch.equal(find(elsewhere, RUN, INPUTS, step=6).model()["w"], tensors(6)["w"])
    assert (tmp_path / "container" / "runs" / RUN / "metrics.jsonl").is_file()


def test_a_damaged_local_copy_is_fetched_anew(remote, caplog):
    write(remote, 3, 6)
    path = remote.path(f"runs/{RUN}/checkpoints/step_000006/model.pt")
    path.write_bytes(path.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        found = find(remote, RUN, INPUTS)
    assert found.step == 6
    assert torch.equal(found.model()["w"], tensors(6)["w"])
    assert "step_000006" in caplog.text


def test_a_store_that_is_away_does_not_stop_training_nor_cost_its_copies(remote, caplog):
    write(remote, 3, keep_last=1)
    upload = remote.remote.upload

    def broken(path, name):
        raise OSError("no route to host")

    remote.remote.upload = broken
    with caplog.at_level(logging.WARNING):
        write(remote, 6, 9, keep_last=1)
    assert "no route to host" in caplog.text
    assert steps_here(remote) == [9]
    remote.remote.upload = upload
    assert any(name.endswith("step_000003") for name in remote.names(f"runs/{RUN}/checkpoints"))
    write(remote, 12, keep_last=1)
    assert [name[-2:] for name in remote.names(f"runs/{RUN}/checkpoints")] == ["12"]


def test_a_store_that_is_away_is_no_reason_to_begin_anew(remote, monkeypatch):
    write(remote, 3)
    shutil.rmtree(remote.path(f"runs/{RUN}"))

    def away(name, path):
        raise StoreError("the store does not answer")

    monkeypatch.setattr(remote.remote, "download", away)
    with pytest.raises(StoreError):
        find(remote, RUN, INPUTS)


def test_training_does_not_wait_for_the_mirror(remote):
    gate = threading.Event()
    upload = remote.remote.upload

    def slow(path, name):
        assert gate.wait(20)
        upload(path, name)

    remote.remote.upload = slow
    checkpoints = Checkpoints(remote, RUN, INPUTS, "attempt")
    for step in (3, 6):
        checkpoints.save(tensors(step), shard(step), {"step": step, "rows": 0})
    checkpoints.settle()
    assert steps_here(remote) == [3, 6]
    gate.set()
    checkpoints.close()
    assert (remote.remote.read_if_exists(f"runs/{RUN}/checkpoints/step_000006/manifest.json")) is not None


def test_a_hanging_mirror_is_given_up_at_the_end(remote, caplog):
    gate = threading.Event()
    remote.remote.upload = lambda path, name: gate.wait(20)
    checkpoints = Checkpoints(remote, RUN, INPUTS, "attempt")
    checkpoints.save(tensors(3), shard(3), {"step": 3, "rows": 0})
    with caplog.at_level(logging.WARNING):
        checkpoints.close(mirror_seconds=0.05)
    gate.set()
    assert "is not complete" in caplog.text
    assert steps_here(remote) == [3]


def test_weights_that_are_no_numbers_are_not_saved(local):
    write(local, 3)
    checkpoints = Checkpoints(local, RUN, INPUTS, "attempt", last=3)
    broken = tensors(6) | {"w": torch.tensor([1.0, float("nan")])}
    checkpoints.save(broken, shard(6), {"step": 6, "rows": 24})
    with pytest.raises(TrainingError, match=r"step 6 the weight w .* that of step 3"):
        checkpoints.settle()
    assert steps_here(local) == [3]


def test_a_file_that_cannot_grow_ends_in_a_sentence(local):
    """As on a full disk: the operating system refuses to write more."""
    checkpoints = Checkpoints(local, RUN, INPUTS, "attempt", last=3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, before[1]))
    try:
        checkpoints.save({"w": torch.zeros(1 << 20)}, shard(6), {"step": 6, "rows": 24})
        with pytest.raises(DiskError, match=r"step 6 could not be written .* free space .* that of step 3"):
            checkpoints.settle()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(local.path(f"runs/{RUN}/checkpoints").glob(".step*"))


def test_two_ranks_write_one_checkpoint(local):
    ranks = [Checkpoints(local, RUN, INPUTS, "attempt", rank=rank, ranks=2) for rank in (0, 1)]
    for rank, checkpoints in enumerate(ranks):
        own = {"optimizer": {f"exp_avg/{rank}": torch.full((2,), float(rank))}}
        checkpoints.save(tensors(3) if rank == 0 else {}, own, {"step": 3, "rows": 12})
    for checkpoints in reversed(ranks):
        checkpoints.close()
    found = find(local, RUN, INPUTS)
    assert [list(shard["optimizer"]) for shard in found.shards()] == [["exp_avg/0"], ["exp_avg/1"]]
    manifest = json.loads((found.artifact.path / "manifest.json").read_text())
    names = [record["path"] for record in manifest["files"]]
    assert names == ["model.pt", "optimizer_00.pt", "optimizer_01.pt", "state.json"]
    assert all(len(record["sha256"]) == 64 for record in manifest["files"])
