"""Which of nanochat's checkpoints count, and where they are mirrored."""

import json
from pathlib import Path

import pytest
import torch

from tasks.engines.nanochat import checkpoints, overlay
from tasks.engines.nanochat.checkpoints import Keeper, folder_of, resume_step, whole_steps
from tasks.errors import InputError
from tasks.store.access import open_blobs
from tasks.store.root import Root

RUN = "top16-d2-s1-0123456789"


def save(folder: Path, step: int) -> None:
    """A checkpoint as the overlay writes it."""
    overlay.save_checkpoint(str(folder), step, {"w": torch.ones(8)}, {"m": torch.zeros(8)}, {"step": step})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = folder_of(Root(tmp_path / "root"), RUN)
    for step in (250, 500, 750):
        save(folder, step)
    return folder


def truncated(folder: Path) -> None:
    path = folder / "model_000750.pt"
    path.write_bytes(path.read_bytes()[:-1])


def without_optimizer(folder: Path) -> None:
    (folder / "optim_000750_rank0.pt").unlink()


def without_metadata(folder: Path) -> None:
    (folder / "meta_000750.json").unlink()


def torn_metadata(folder: Path) -> None:
    (folder / "meta_000750.json").write_text('{"step": 750, "fabrating": {"ranks"')


def of_plain_upstream(folder: Path) -> None:
    (folder / "meta_000750.json").write_text('{"step": 750}')


def hostile(folder: Path) -> None:
    marker = {"ranks": 1, "files": {"../../../../job.json": 2}}
    (folder / "meta_000750.json").write_text(json.dumps({"fabrating": marker}))


@pytest.mark.parametrize(
    "damage", [truncated, without_optimizer, without_metadata, torn_metadata, of_plain_upstream, hostile]
)
def test_what_is_not_whole_is_passed_over(folder: Path, tmp_path: Path, damage) -> None:
    assert whole_steps(folder) == [250, 500, 750]
    damage(folder)
    assert whole_steps(folder) == [250, 500]
    assert resume_step(Root(tmp_path / "root"), RUN, 1) == 500


def test_another_number_of_gpus_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gpus is 2, but .* started on 1"):
        resume_step(Root(tmp_path / "root"), RUN, 2)


def test_a_new_run_starts_at_the_beginning(tmp_path: Path) -> None:
    assert resume_step(Root(tmp_path), RUN, 1) == 0


def with_remote(tmp_path: Path, name: str) -> Root:
    """A root whose remote store is a folder beside it."""
    (tmp_path / "remote").mkdir(exist_ok=True)
    root = Root(tmp_path / name)
    root.remote = open_blobs((tmp_path / "remote").as_uri())
    return root


def test_checkpoints_are_mirrored_dropped_and_fetched_on_another_machine(tmp_path: Path) -> None:
    here = with_remote(tmp_path, "here")
    here.path(f"runs/{RUN}").mkdir(parents=True)
    here.path(f"runs/{RUN}/metrics.jsonl").write_text('{"step": 0, "kind": "event"}\n')
    keeper = Keeper(here, RUN, keep_last=1, keep_every=500)
    for step in (250, 500, 750):
        save(folder_of(here, RUN), step)
        keeper.saved(step)
    keeper.close()
    assert whole_steps(folder_of(here, RUN)) == [500, 750]
    there = with_remote(tmp_path, "there")
    assert resume_step(there, RUN, 1) == 750
    mirrored = {blob.name.rsplit("/", 1)[-1] for blob in here.remote.list(f"runs/{RUN}")}
    assert mirrored == {"metrics.jsonl", *(path.name for path in folder_of(here, RUN).iterdir())}
    for path in folder_of(there, RUN).iterdir():
        assert path.read_bytes() == (folder_of(here, RUN) / path.name).read_bytes()


def test_a_store_that_is_away_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = with_remote(tmp_path, "here")
    (tmp_path / "remote").rmdir()
    (tmp_path / "remote").write_text("no folder")
    keeper = Keeper(root, RUN, keep_last=1, keep_every=None)
    for step in (250, 500):
        save(folder_of(root, RUN), step)
        keeper.saved(step)
    keeper.close()
    assert whole_steps(folder_of(root, RUN)) == [250, 500]
    assert "not mirrored" in caplog.text


def test_the_base_directory_lies_in_the_run(tmp_path: Path) -> None:
    assert checkpoints.base_name(RUN) == f"runs/{RUN}/nanochat"
    assert folder_of(Root(tmp_path), RUN) == tmp_path / "runs" / RUN / "nanochat" / "base_checkpoints" / RUN
