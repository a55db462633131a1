"""Folders without a manifest, such as a whole run, fetched to where there is one already."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.errors import DamagedError, InputError
from tasks.hosts.machine import Local
from tasks.hosts.transfer import move
from tasks.store.artifact import Work
from tasks.store.root import Root

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


pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


def fetch(folder: Path, name: str) -> str:
    """Move between two folders of this machine; returns the way."""
    return move(Local(), str(folder / "there"), Local(), str(folder / "here"), name).way


@pytest.mark.parametrize("name", ["runs/top", "runs"])
def test_nothing_that_is_only_at_the_target_is_lost(name: str, tmp_path: Path) -> None:
    write(tmp_path / "there", THERE)
    write(tmp_path / "here", HERE)
    fetch(tmp_path, name)
    assert found(tmp_path / "here", THERE | HERE) == THERE | HERE
    assert fetch(tmp_path, name) == "already there"
    assert list(tmp_path.glob("here/**/.*")) == []


def test_of_a_file_on_both_the_newer_version_counts(tmp_path: Path) -> None:
    write(tmp_path / "there", {"runs/top/run.json": "old", "runs/top/log.txt": "all of it"})
    write(tmp_path / "here", {"runs/top/run.json": "new", "runs/top/log.txt": "begin"})
    for path in (tmp_path / "there/runs/top/run.json", tmp_path / "here/runs/top/log.txt"):
        os.utime(path, (1, 1))
    assert fetch(tmp_path, "runs/top").endswith("1 newer files there were kept")
    expected = {"runs/top/run.json": "new", "runs/top/log.txt": "all of it"}
    assert found(tmp_path / "here", expected) == expected


def test_an_artifact_inside_that_has_other_content_is_refused_by_name(tmp_path: Path) -> None:
    for place in ("there", "here"):
        artifact(tmp_path / place, "runs/top/result", place)
        write(tmp_path / place, {f"runs/{place}/run.json": place})
    with pytest.raises(
        InputError, match=r"has other content in .*/here/runs under the names top/result: move those away"
    ):
        fetch(tmp_path, "runs")
    assert (tmp_path / "here/runs/top/result/scores").read_text() == "here"
    assert not (tmp_path / "here/runs/there").exists()


def test_an_artifact_replaces_one_of_its_name_and_nothing_beside_it(tmp_path: Path) -> None:
    artifact(tmp_path / "there", "verdicts/v1", "there")
    large = tmp_path / "a large disk" / "v1"
    artifact(large.parents[1], "a large disk/v1", "here")
    write(tmp_path / "here", {"verdicts/v1.old/notes": "a person's"})
    (tmp_path / "here/verdicts/v1").symlink_to(large)
    fetch(tmp_path, "verdicts/v1")
    assert (tmp_path / "here/verdicts/v1").is_symlink() and (large / "scores").read_text() == "there"
    assert (tmp_path / "here/verdicts/v1.old/notes").read_text() == "a person's"


def test_transfers_from_two_hosts_at_once_leave_the_union(tmp_path: Path) -> None:
    sources = {f"host{number}": {f"runs/r{number}/run.json": str(number)} for number in range(3)}
    for host, files in sources.items():
        write(tmp_path / host, files)
    with ThreadPoolExecutor() as pool:  # each twice
        moves = [
            pool.submit(move, Local(), str(tmp_path / host), Local(), str(tmp_path / "here"), "runs")
            for host in [*sources, *sources]
        ]
    assert [one.result().name for one in moves] == ["runs"] * 6
    for files in sources.values():
        assert found(tmp_path / "here", files) == files


def test_what_else_lies_in_the_folder_of_an_artifact_or_beside_it_stays(tmp_path: Path) -> None:
    artifact(tmp_path / "there", "verdicts/v1", "there")
    artifact(tmp_path / "here", "verdicts/v1", "here")
    own = {"verdicts/v1/my notes/a.txt": "mine", "verdicts/v1/.hidden": "mine", "verdicts/.v1.replaced/b": "mine"}
    own |= {"verdicts/.v1.incoming/scores": "mine"}
    write(tmp_path / "here", own)
    fetch(tmp_path, "verdicts/v1")
    assert found(tmp_path / "here", own) == own
    assert (tmp_path / "here/verdicts/v1/scores").read_text() == "there"
    write(tmp_path / "elsewhere", {"verdicts/v1/scores": "a person's"})
    with pytest.raises(
        InputError, match=r"has other content in .*/verdicts/v1 under the names scores: move those away"
    ):
        move(Local(), str(tmp_path / "there"), Local(), str(tmp_path / "elsewhere"), "verdicts/v1")


def test_of_two_installations_that_bring_an_artifact_at_once_the_last_is_whole(tmp_path: Path) -> None:
    for host in ("one", "two"):
        artifact(tmp_path / host, "runs", host)
    artifact(tmp_path / "here", "runs", "before")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MOVE, str(tmp_path / host), str(tmp_path / "here")],
            env=os.environ | {"FABRATING_HOME": str(tmp_path / f"home of {host}")},
        )
        for host in ("one", "two")
    ]
    assert [process.wait() for process in started] == [0, 0]
    text = (tmp_path / "here/runs/scores").read_text()
    assert Root(tmp_path / "here").open("runs", checksums=True) and text in ("one", "two")
    assert list((tmp_path / "here").glob(".runs*")) == []


def test_a_folder_on_another_disk_is_joined_there(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        write(Path(disk), {"old.pt": "older"})
        write(tmp_path / "there", THERE)
        (tmp_path / "here/runs/top").mkdir(parents=True)
        (tmp_path / "here/runs/top/checkpoints").symlink_to(disk)
        fetch(tmp_path, "runs")
        assert found(tmp_path / "here", THERE) == THERE
        assert sorted(p.relative_to(disk).as_posix() for p in Path(disk).rglob("*.*")) == [
            "old.pt",
            "step_000250/model.pt",
        ]


def test_what_is_not_carried_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "there", THERE | {"runs/.cache/deep/a": "", "runs/.cache/b": ""})
    (tmp_path / "there/runs/latest").symlink_to("top")
    fetch(tmp_path, "runs")
    assert "are not carried: latest (symbolic link), .cache (hidden)" in caplog.text
    (tmp_path / "there/runs" / os.fsdecode(b"caf\xe9")).write_text("")
    with pytest.raises(InputError, match="whose name is not UTF-8"):
        fetch(tmp_path, "runs")
    artifact(tmp_path / "there", "pool", "rows")
    (tmp_path / "there/pool/scores").unlink()
    with pytest.raises(DamagedError, match="lacks scores, which its manifest names"):
        fetch(tmp_path, "pool")


@pytest.mark.parametrize("says", ["exit 1", "echo 0000000000000000000000000000000000000000000000000000000000000000"])
def test_an_openssl_that_does_not_work_is_not_used(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_before(monkeypatch, tmp_path / "broken", openssl=says)
    write(tmp_path / "there", THERE)
    fetch(tmp_path, "runs")
    assert found(tmp_path / "here", THERE) == THERE


@pytest.mark.parametrize(
    ("tool", "does", "says"),
    [
        ("rsync", "exit 11", r"\(rsync ended with 11\): check the disks"),
        ("rsync", "echo 'rsync: write failed: No space left on device (28)' >&2; exit 11", "No space left on device"),
        ("rsync", "exit 0", r"arrives with other content\): check the disks"),
        ("find", "exit 1", "a transfer needs find-of-GNU there: install"),
    ],
)
def test_what_fails_again_and_again_ends_in_a_sentence(
    tool: str, does: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.hosts.transfer.PAUSE_SECONDS", 0)
    put_before(monkeypatch, tmp_path / "broken", **{tool: does})
    write(tmp_path / "there", THERE)
    with pytest.raises(InputError, match=says):
        fetch(tmp_path, "runs")
    assert not (tmp_path / "here/runs").exists()


def put_before(monkeypatch: pytest.MonkeyPatch, folder: Path, **tools: str) -> None:
    """Tools that do something else than those of this machine."""
    write(folder, {name: f"#!/bin/sh\n{does}\n" for name, does in tools.items()})
    for name in tools:
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


MOVE = "import sys; from tasks.hosts.machine import Local; from tasks.hosts.transfer import move; print('go', flush=True); move(Local(), sys.argv[1], Local(), sys.argv[2], 'runs')"


@pytest.mark.slow
def test_transfers_that_are_cut_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    for number in range(5):
        folder = tmp_path / str(number)
        write(folder / "there", {f"runs/r{run}/part {file}": f"{run} {file}" for run in range(3) for file in range(40)})
        write(folder / "here", HERE)
        command = [sys.executable, "-c", MOVE, str(folder / "there"), str(folder / "here")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as cut:
            cut.stdout.readline()
            time.sleep(draw.uniform(0.0, 0.6))
            os.killpg(cut.pid, signal.SIGKILL)
        assert found(folder / "here", HERE) == HERE
        fetch(folder, "runs")
        there = {p.relative_to(folder / "there").as_posix(): p.read_text() for p in folder.glob("there/runs/*/*")}
        assert found(folder / "here", there | HERE) == there | HERE
        assert [path.name for path in folder.glob("here/**/*") if path.name.startswith(".")] == []


def artifact(folder: Path, name: str, text: str) -> None:
    def make(work: Work) -> None:
        work.temporary("scores").write_text(text)
        work.finish("scores")

    Root(folder).build(name, make, spec={})
