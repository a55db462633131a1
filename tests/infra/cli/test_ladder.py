"""`fabrating ladder` on this machine: real runs at three depths, one prediction, and nothing trained again."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from infra.cli.main import app
from tasks.records import ledger
from tasks.store.root import Root


@pytest.fixture
def file(sample, tmp_path):
    arm = {"share": 0.4, "order": "shuffled"}
    pool = {"vocab_size": 512, "holdout_documents": 20, "holdout_fraction": 0.1, "tokenizer_characters": 200_000}
    train = {"sequence_length": 64, "window_pattern": "L", "batch_tokens": 256, "precision": "fp32", "device": "cpu"}
    train |= {"wandb": "disabled", "tokens_per_parameter": 0.005, "eval_every": 1_000, "save_every": 1_000}
    experiment = {
        "name": "steps",
        "arms": [{"name": "top", **arm}, {"name": "bottom", "select": "bottom", **arm}],
        "data": {"source": str(sample), **pool},
        "train": train,
        "root": str(tmp_path / "root"),
        "replicates": 2,
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path / "experiment.yaml"


def run(file, *options):
    return CliRunner().invoke(app, ["ladder", str(file), "--to", "4", "--depths", "1,2,3", *options])


def test_what_it_costs_is_said_and_too_much_is_refused_before_anything_is_there(file, tmp_path):
    refused = run(file)
    assert refused.exit_code == 1
    assert "The ladder of d1, d2, d3 costs" in refused.stderr and "of a comparison at d4" in refused.stderr
    assert "raise most" in refused.stderr
    assert not list((tmp_path / "root").glob("*/*"))


def test_depths_that_are_no_numbers_are_refused(file):
    refused = CliRunner().invoke(app, ["ladder", str(file), "--depths", "d4,d6"])
    assert refused.exit_code == 1 and "write whole numbers with commas" in refused.stderr


def test_what_the_deepest_rung_or_texts_lack_is_said_before_the_smallest_is_trained(file, tmp_path):
    asked = yaml.safe_load(file.read_text())
    asked["train"]["tokens_per_parameter"] = 1
    file.write_text(yaml.safe_dump(asked))
    refused = run(file, "--most", "9")
    assert refused.exit_code == 1 and "Rung d3: The budget is" in refused.stderr
    asked["train"]["tokens_per_parameter"] = 0.005
    (tmp_path / "few.jsonl").write_text('{"text": "the cat sat"}\n' * 7)
    for place, words in (("few.jsonl", "There are 7 texts book"), ("nowhere.jsonl", "nowhere.jsonl holds no files")):
        asked["texts"] = [{"name": "book", "url": str(tmp_path / place)}]
        file.write_text(yaml.safe_dump(asked))
        refused = run(file, "--most", "9")
        assert refused.exit_code == 1 and words in refused.stderr
    assert not (tmp_path / "root" / "runs").exists()


@pytest.mark.slow
def test_three_depths_are_trained_compared_and_predict_a_fourth(file, tmp_path):
    ended = run(file, "--most", "9", "--json")
    assert ended.exit_code == 0, ended.stderr
    found = json.loads(ended.stdout)
    (forecast,) = found["forecasts"]
    assert [rung["depth"] for rung in forecast["rungs"]] == [1, 2, 3]
    assert all(rung["replicates"] == 2 and rung["error_seeds"] > 0 for rung in forecast["rungs"])
    assert forecast["low"] < forecast["difference"] < forecast["high"]
    root = Root(tmp_path / "root")
    before = {entry.run: entry.updated for entry in ledger.entries(root)}
    assert len(before) == 12
    for depth in (1, 2, 3):
        plan = json.loads((tmp_path / "root" / "verdicts" / f"steps-d{depth}" / "registered.json").read_text())
        assert len(plan["plans"]) == 1 and plan["plans"][0]["runs_before"] == 0, "a plan of its own, before its runs"
    again = run(file, "--most", "9", "--json")
    assert json.loads(again.stdout)["artifact"] == found["artifact"]
    assert {entry.run: entry.updated for entry in ledger.entries(root)} == before
