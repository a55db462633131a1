"""What a launched run is given, wherever its worker stands."""

from infra.local.launch import on_the_cpu, whole
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


def test_fp32_on_a_machine_without_a_gpu_is_estimated_for_its_cpu():
    train = {"engine": "builtin", "precision": "fp32", "device": "auto", "depth": 2}
    assert on_the_cpu({"name": "a", "train": train}) == {"name": "a", "train": train | {"device": "cpu"}}
    for kept in (train | {"precision": "bf16"}, train | {"device": "cuda"}):
        assert on_the_cpu({"train": kept}) == {"train": kept}
