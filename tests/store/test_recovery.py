"""An artifact after damage, a removal that was cut off, or an end at the worst moment: it is made anew, and no more than that."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tasks.errors import DamagedError
from tasks.store.access import open_blobs
from tasks.store.artifact import MANIFEST
from tasks.store.root import Root

NAME = "arms/a-1/text"


def make(work) -> None:
    work.temporary("shard").write_text("right")
    work.finish("shard")


def test_damage_in_the_store_is_mended_by_the_next_that_builds(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()

    def host(name: str) -> Root:
        root = Root(tmp_path / name)
        root.remote = open_blobs((tmp_path / "store").as_uri())
        return root

    host("first").build(NAME, make, spec={})
    (tmp_path / "store" / NAME / "shard").write_text("wrong")
    second = host("second")
    second.intact(NAME)  # as each preparation begins
    made = second.build(NAME, make, spec={})
    assert (made.path / "shard").read_text() == "right"
    assert (host("third").open(NAME, checksums=True).path / "shard").read_text() == "right"


@pytest.mark.parametrize("harm", ["other bytes", "cut short", "deleted", "never sent"])
def test_a_whole_copy_on_this_machine_repairs_the_store(
    harm: str, azure: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Root(f"az://{azure}/root", tmp_path / "here")
    root.build(NAME, make, spec={})
    if harm == "other bytes":
        root.remote.write(f"{NAME}/shard", b"wrong")
    elif harm == "cut short":
        root.remote.write(f"{NAME}/shard", b"rig")
    else:
        root.remote.delete(f"{NAME}/shard" if harm == "deleted" else f"{NAME}/{MANIFEST}")
    assert root.intact(NAME)
    assert (f"{root.url}/{NAME}/shard" in caplog.text) == (harm != "never sent")
    other = Root(f"az://{azure}/root", tmp_path / "there")
    assert (other.open(NAME).path / "shard").read_text() == "right"
    read = other.remote.counters.bytes_read
    assert other.intact(NAME) and root.intact(NAME)
    assert other.remote.counters.bytes_read - read < 2_000  # the manifest: what still has its ETag is not read again


def test_what_arrives_damaged_names_the_object_and_is_fetched_again_once_it_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    here, there = Root(tmp_path / "here"), Root(tmp_path / "there")
    here.remote, there.remote = (open_blobs((tmp_path / "store").as_uri()) for _ in range(2))
    here.build(NAME, make, spec={})
    shard = tmp_path / "store" / NAME / "shard"
    shard.write_text("wrong")
    with pytest.raises(DamagedError, match=rf"{shard.as_uri()} is not what its manifest says"):
        there.open(NAME)
    assert here.intact(NAME)
    assert (there.open(NAME).path / "shard").read_text() == "right"


def test_of_two_hosts_that_made_other_content_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    here, there = Root(tmp_path / "here"), Root(tmp_path / "there")
    here.remote, there.remote = (open_blobs((tmp_path / "store").as_uri()) for _ in range(2))

    def slower(work) -> None:
        there.build(NAME, make, spec={})
        work.temporary("shard").write_text("other")
        work.finish("shard")

    assert (here.build(NAME, slower, spec={}).path / "shard").read_text() == "right"


@pytest.mark.parametrize("how", ["the manifest was deleted", "the removal was cut off"])
def test_a_folder_without_a_manifest_is_no_obstacle(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(tmp_path)
    made = root.build(NAME, make, spec={})
    if how == "the manifest was deleted":
        (made.path / "manifest.json").unlink()
    else:

        def cut_off(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(shutil, "rmtree", cut_off)
            root.remove(NAME)
    assert root.find(NAME) is None
    again = root.build(NAME, make, spec={})
    assert not again.reused and (again.path / "shard").read_text() == "right"


PROGRAM = textwrap.dedent("""
    import errno, os, sys
    from pathlib import Path
    from tasks.store.root import Root

    folder, end = sys.argv[1:]

    def hook(event, arguments):  # what Python opens: writing a manifest ends in trouble
        if end == "none" or event != "open" or "manifest" not in Path(str(arguments[0])).name:
            return
        if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            if end == "killed":
                os._exit(9)
            raise OSError(errno.ENOSPC, "No space left on device")

    def make(work):
        for number in range(3):
            if work.done(f"shard_{number}") is None:
                work.temporary(f"shard_{number}").write_text("text")
                work.finish(f"shard_{number}")
                print(number, flush=True)

    sys.addaudithook(hook)
    Root(folder).build("arms/a-1/text", make, spec={})
""")


@pytest.mark.parametrize("end", ["killed", "disk full"])
def test_an_end_while_the_manifest_is_written_costs_no_finished_file(end: str, tmp_path: Path) -> None:
    def attempt(end: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), end]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    first = attempt(end)
    assert first.returncode in (1, 9), first.stderr
    assert Root(tmp_path).find(NAME) is None
    second = attempt("none")
    assert second.returncode == 0, second.stderr
    assert (first.stdout.split(), second.stdout.split()) == (["0", "1", "2"], [])
