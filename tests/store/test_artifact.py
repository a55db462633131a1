"""Artifacts are whole or not there, go on where they stopped, and never hide damage."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tasks.errors import DamagedError, DiskError, InputError
from tasks.store.artifact import MANIFEST, Manifest, fingerprint, safe_relative
from tasks.store.root import Root


def write(work, name, text):
    work.temporary(name).write_text(text)
    return work.finish(name, rows=text.count("\n"))


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "a root")


def two_files(work):
    write(work, "part/a.txt", "one\n")
    write(work, "part/b.txt", "one\ntwo\n")
    work.facts["files"] = 2


def test_a_built_artifact_is_found_opened_and_reused(root):
    made = root.build("arms/x-1/text", two_files, spec={"share": 0.5})
    again = root.build("arms/x-1/text", lambda work: pytest.fail("made twice"), spec={"share": 0.5})
    assert (made.reused, again.reused) == (False, True)
    assert root.open("arms/x-1/text", checksums=True).manifest == made.manifest
    assert [(f.path, f.rows) for f in made.manifest.files] == [("part/a.txt", 1), ("part/b.txt", 2)]
    assert root.names("arms") == ["arms/x-1/text"]


def test_an_artifact_of_other_inputs_under_the_same_name_is_refused(root):
    root.build("arms/x-1/text", two_files, spec={"share": 0.5})
    with pytest.raises(DamagedError, match=r"arms/x-1/text was made from other inputs"):
        root.build("arms/x-1/text", two_files, spec={"share": 0.6})


def test_a_damaged_artifact_is_set_aside_and_made_anew(root):
    made = root.build("arms/x-1/text", two_files, spec={})
    assert root.intact("arms/x-1/text") and not root.intact("arms/y-1/text")
    (made.path / "part" / "a.txt").write_text("0ne\n")
    assert not root.intact("arms/x-1/text")
    assert root.names("arms") == []
    again = root.build("arms/x-1/text", two_files, spec={})
    assert not again.reused and again.manifest.files == made.manifest.files
    assert (made.path.parent / ".text.damaged" / "part" / "a.txt").read_text() == "0ne\n"


def test_a_failed_attempt_leaves_nothing_visible_and_its_finished_files_are_kept(root):
    made = []

    def fails(work):
        write(work, "a.txt", "kept\n")
        work.temporary("b.txt").write_text("half")
        raise OSError("no space left")

    def goes_on(work):
        for name in ("a.txt", "b.txt"):
            if not work.done(name):
                made.append(name)
                write(work, name, "whole\n")

    with pytest.raises(OSError, match="no space"):
        root.build("arms/x-1/text", fails, spec={})
    assert root.find("arms/x-1/text") is None
    artifact = root.build("arms/x-1/text", goes_on, spec={})
    assert made == ["b.txt"]
    assert (artifact.path / "a.txt").read_text() == "kept\n"
    assert sorted(p.name for p in artifact.path.iterdir()) == ["a.txt", "b.txt", MANIFEST]


def test_a_full_disk_is_named_with_what_was_being_made_and_the_next_attempt_goes_on(root):
    def fill(work):
        write(work, "a.txt", "one\n")
        with Path("/dev/full").open("w") as full:  # it answers as a disk without space does
            full.write("two\n")

    with pytest.raises(DiskError, match=r"No space is left below .* to make arms/x-1/text: free some"):
        root.build("arms/x-1/text", fill, spec={})
    seen = []
    root.build("arms/x-1/text", lambda work: seen.append(work.done("a.txt")), spec={})
    assert seen[0] is not None


def test_a_killed_process_leaves_no_artifact_and_a_rerun_goes_on(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from tasks.store.root import Root
        def make(work):
            for name in ("a", "b", "c"):
                if work.done(name):
                    print("kept", name)
                    continue
                work.temporary(name).write_text(name * 1000)
                if sys.argv[2] == name:
                    os.kill(os.getpid(), signal.SIGKILL)
                work.finish(name)
        Root(sys.argv[1]).build("pools/p-1/index", make, spec={})
    """)
    run = [sys.executable, "-c", script, str(tmp_path / "root")]
    killed = subprocess.run([*run, "b"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert Root(tmp_path / "root").find("pools/p-1/index") is None
    done = subprocess.run([*run, "none"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kept", "a"]
    assert len(Root(tmp_path / "root").open("pools/p-1/index", checksums=True).manifest.files) == 3


def test_an_abandoned_attempt_with_another_recipe_is_cleared(root):
    with pytest.raises(KeyError):
        root.build("arms/x-1/text", lambda work: (write(work, "old.txt", "old\n"), {}["stop"]), spec={"v": 1})
    artifact = root.build("arms/x-1/text", lambda work: write(work, "new.txt", "new\n"), spec={"v": 2})
    assert [f.path for f in artifact.manifest.files] == ["new.txt"]


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_is_found_and_named(root, damage):
    path = root.build("arms/x-1/text", two_files, spec={}).path / "part/b.txt"
    if damage == "flip":
        path.write_bytes(b"onE\ntwo\n")
    elif damage == "cut":
        os.truncate(path, 3)
    else:
        path.unlink()
    with pytest.raises(DamagedError, match=r"part/b\.txt"):
        root.open("arms/x-1/text", checksums=True)


def test_a_manifest_from_another_version_or_of_garbage_is_refused_by_name(root):
    path = root.build("arms/x-1/text", two_files, spec={}).path / MANIFEST
    text = path.read_text()
    path.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(DamagedError, match="manifest format 99"):
        root.find("arms/x-1/text")
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DamagedError, match="is not a manifest"):
        root.find("arms/x-1/text")


def test_a_manifest_cannot_name_files_outside_its_directory(root):
    path = root.build("arms/x-1/text", two_files, spec={}).path / MANIFEST
    with pytest.raises((DamagedError, InputError), match=r"\.\./b\.txt"):
        Manifest.from_json(path.read_text().replace("part/b.txt", "../b.txt"), "here")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a\nb", "a\\b", "", "."])
def test_hostile_names_are_refused(name):
    with pytest.raises(InputError):
        safe_relative(name)


def test_fingerprints_depend_on_values_not_on_key_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
