"""What a launched run is given, wherever its worker stands."""

from infra.local.launch import whole
from tasks.spec.pool import SOURCE


def test_paths_from_here_go_as_whole_ones_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arms = [{"name": "random", "select": "random", "ids": "az://raw/ids.txt"}]
    given = {
        "data": {"source": "raw", "sources": {"a": "raw"}, "holdout": None},
        "arms": arms,
        "root": ".fabrating/root",
    }
    sent = whole(given | {"texts": [{"name": "raw", "url": "raw"}], "depths": (4, 6), "root": "results"})
    assert sent["root"] == str(tmp_path / "results") and whole({"source": SOURCE}) == {"source": SOURCE}
    there = str(tmp_path / "raw")
    assert sent["data"] == {"source": there, "sources": {"a": there}, "holdout": None}
    assert (sent["arms"], whole(given)["root"], sent["depths"]) == (arms, ".fabrating/root", [4, 6])
    assert sent["texts"] == [{"name": "raw", "url": there}]
