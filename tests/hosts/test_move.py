"""Folders without a manifest, such as a whole run, fetched to where there is one already."""

import shutil
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts.ssh import Local
from tasks.hosts.transfer import move

THERE = {"runs/top/checkpoints/step_000250/model.pt": "older", "runs/top/run.json": "{}"}
HERE = {
    "runs/top/checkpoints/step_001000/model.pt": "newer",
    "runs/top/result/scores.parquet": "scores",
    "runs/random/result/scores.parquet": "another run",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def found(folder: Path, files: dict[str, str]) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in files if (folder / name).is_file()}


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Two hosts on one root, strangers at the door: a folder that is fetched replaces the one that is there",
)
@pytest.mark.parametrize("name", ["runs/top", "runs"])
def test_nothing_that_is_only_at_the_target_is_lost(name: str, tmp_path: Path) -> None:
    write(tmp_path / "there", THERE)
    write(tmp_path / "here", HERE)
    try:
        move(Local(), str(tmp_path / "there"), Local(), str(tmp_path / "here"), name)
    except InputError:
        pass
    else:
        assert found(tmp_path / "here", THERE) == THERE
    assert found(tmp_path / "here", HERE) == HERE
