"""A name holds one content: what an artifact was made from is compared with what lies there now."""

import dataclasses

import pytest

from tasks.errors import InputError
from tasks.store.artifact import MANIFEST, Manifest
from tasks.store.root import Root

SOURCE, MADE = "pools/p/holdout", "arms/a/text"


def write(work, **files):
    for name, text in files.items():
        work.temporary(name).write_text(text)
        work.finish(name)


def source(root, text):
    """The holdout as a release of the code makes it: spec and fingerprint are the same for every text."""
    return root.build(SOURCE, lambda work: write(work, documents=text), spec={"seed": 1})


def made(root, of, make=lambda work: write(work, shard="text")):
    return root.build(MADE, make, spec={}, inputs={"holdout": of.manifest, "pool": "p"})


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


def test_content_is_of_files_alone_not_of_code_time_or_counts(root, tmp_path):
    first = source(root, "a").manifest
    later = dataclasses.replace(first, code="9", created="2030-01-01", facts={"seconds": 3}, files=first.files[::-1])
    assert later.content == first.content and len(first.content) == 64
    elsewhere = Root(tmp_path / "elsewhere").build(SOURCE, lambda work: write(work, documents="a"), spec={"seed": 2})
    assert elsewhere.manifest.content == first.content
    renamed = Root(tmp_path / "renamed").build(SOURCE, lambda work: write(work, texts="a"), spec={"seed": 1})
    assert renamed.manifest.content != first.content


def test_a_manifest_says_the_content_of_what_it_was_made_from(root):
    held = source(root, "a")
    manifest = made(root, held).manifest
    assert manifest.made_from == {SOURCE: held.manifest.content}
    assert manifest.inputs == {"holdout": held.fingerprint, "pool": "p"}
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


def test_what_was_made_from_other_content_of_the_same_name_is_refused(root):
    held = source(root, "a")
    manifest = made(root, held).manifest
    root.remove(SOURCE)
    again = source(root, "a")
    assert made(root, again).reused, "made again from the same, it is the same"
    root.require_current([manifest])
    root.remove(SOURCE)
    other = source(root, "b")
    assert other.fingerprint == held.fingerprint
    with pytest.raises(InputError, match=f"{MADE} was made from another {SOURCE} .*: delete the folder {MADE}"):
        made(root, other)
    with pytest.raises(InputError, match=f"{MADE} was made from another {SOURCE}"):
        root.require_current([manifest])
    root.remove(MADE)
    assert not made(root, other).reused


def test_a_source_that_is_not_there_is_no_fault(root):
    manifest = made(root, source(root, "a")).manifest
    root.remove(SOURCE)
    root.require_current([manifest])


def test_a_half_made_artifact_is_not_continued_from_other_content(root):
    def fails(work):
        write(work, first="made of a")
        raise KeyError("killed")

    with pytest.raises(KeyError):
        made(root, source(root, "a"), fails)
    root.remove(SOURCE)
    done = []
    made(root, source(root, "b"), lambda work: (done.append(work.done("first")), write(work, first="made of b")))
    assert done == [None]


def test_what_was_made_before_contents_were_recorded_is_refused_by_name(root):
    held = source(root, "a")
    old = dataclasses.replace(made(root, held).manifest, made_from=None)
    raw = old.to_json().replace(' "made_from": null,\n', "")
    assert "made_from" not in raw
    (root.path(MADE) / MANIFEST).write_text(raw)
    assert root.find(MADE) == old
    with pytest.raises(InputError, match=f"{MADE} does not record the {SOURCE} .*: delete the folder {MADE}"):
        made(root, held)
    root.require_current([old])
