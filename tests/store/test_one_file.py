import pytest

from tasks.errors import DamagedError, InputError
from tasks.store.access import open_blobs
from tasks.store.root import Root


@pytest.fixture
def remote(tmp_path):
    """A root whose artifacts lie in another store, here a folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = Root(tmp_path / "here")
    root.remote = open_blobs(elsewhere.as_uri())

    def make(work):
        for name in ("small.txt", "deep/large.txt"):
            work.temporary(name).write_text(name * 100)
            work.finish(name)

    root.build("arms/a/text", make, spec={})
    fresh = Root(tmp_path / "fresh")
    fresh.remote = root.remote
    return root, fresh, elsewhere


def test_one_file_is_fetched_without_the_others(remote):
    root, fresh, elsewhere = remote
    path = fresh.file("arms/a/text", "deep/large.txt")
    assert path.read_text() == "deep/large.txt" * 100
    assert [found.name for found in fresh.folder.rglob("*.txt")] == ["large.txt"]
    (elsewhere / "arms/a/text/deep/large.txt").unlink()
    assert fresh.file("arms/a/text", "deep/large.txt") == path
    assert fresh.names("arms") == ["arms/a/text"]
    assert root.file("arms/a/text", "small.txt") == root.path("arms/a/text") / "small.txt"


def test_a_file_that_is_not_there_or_damaged_is_named(remote):
    root, fresh, elsewhere = remote
    with pytest.raises(InputError, match=r"no file other\.txt of a complete artifact arms/a/text"):
        fresh.file("arms/a/text", "other.txt")
    with pytest.raises(InputError, match="no file x of a complete artifact arms/b"):
        fresh.file("arms/b", "x")
    (elsewhere / "arms/a/text/small.txt").write_text("X" * len("small.txt" * 100))
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"small\.txt has another SHA-256"):
            fresh.file("arms/a/text", "small.txt")
    (root.path("arms/a/text") / "small.txt").unlink()
    with pytest.raises(DamagedError, match=r"small\.txt is missing: delete .* and run again"):
        root.file("arms/a/text", "small.txt")
