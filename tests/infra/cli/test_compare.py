"""`fabrating compare` on this machine: killed and stopped in the middle, run again, and one verdict by the stopping rule."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from infra.cli.main import app
from tasks.records import ledger
from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.spec import FACTUAL
from tasks.spec.written import read
from tasks.store.root import Root
from tasks.verdict.form import ComparisonForm

STOP = {"first_look": 2, "max_replicates": 3, "margin": 1e-6}


@pytest.fixture
def file(sample, tmp_path):
    arm = {"share": 0.3, "order": "shuffled"}
    pool = {"vocab_size": 512, "holdout_documents": 40, "holdout_fraction": 0.1, "tokenizer_characters": 200_000}
    train = {"depth": 1, "sequence_length": 64, "window_pattern": "L", "batch_tokens": 2048, "precision": "fp32"}
    train |= {"device": "cpu", "wandb": "disabled", "tokens": 65_536, "eval_every": 8, "save_every": 8}
    experiment = {
        "name": "here",
        "arms": [{"name": "top", **arm}, {"name": "rand", "select": "random", **arm}],
        "data": {"source": str(sample), **pool},
        "train": train,
        "root": str(tmp_path / "root"),
        "stop": STOP,
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path / "experiment.yaml"


def test_init_writes_no_file_over_another_and_none_that_is_not_what_was_asked_for(tmp_path):
    place = tmp_path / "mine.yaml"
    assert CliRunner().invoke(app, ["init", str(place)]).exit_code == 0
    first = place.read_text()
    assert f"fabrating compare {place}" in first
    refused = CliRunner().invoke(app, ["init", str(place)])
    assert refused.exit_code == 1 and "is there already: name another file" in refused.stderr
    nowhere = CliRunner().invoke(app, ["init", str(tmp_path / "nowhere" / "mine.yaml")])
    assert nowhere.exit_code == 1 and "cannot be written (No such file or directory)" in nowhere.stderr
    assert place.read_text() == first
    unsized = CliRunner().invoke(app, ["init", str(tmp_path / "other.yaml"), "--gpu"])
    assert (
        unsized.exit_code == 1
        and "--gpu sizes what --data fills in, but --data is not given: give both" in unsized.stderr
    )
    assert list(tmp_path.iterdir()) == [place]


def test_init_fills_in_what_the_data_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pa.table(
        {"body": [f"{n} words " * 50 for n in range(4_000)], "clarity": [0.5] * 4_000, "year": [2000] * 4_000}
    )
    asked = ["init", str(tmp_path / "mine.yaml"), "--data", "docs.parquet", "--cpu"]
    pq.write_table(table.rename_columns(["body", "quality", "clarity"]), tmp_path / "docs.parquet")
    said = " ".join(CliRunner().invoke(app, asked).stdout.split())
    assert "texts from body ranked by quality other numbers clarity runs 4 of each arm, of " in said
    (tmp_path / "mine.yaml").unlink()
    pq.write_table(table, tmp_path / "docs.parquet")
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "other numbers" not in done.stdout, "a year is no rating"
    form = read(tmp_path / "mine.yaml", ComparisonForm)
    assert (form.data.text_column, form.data.score) == ("body", {"clarity": 1.0})
    assert form.data.urls[""] == str(tmp_path / "docs.parquet") and form.train.precision == "fp32"
    dated = pa.table({"doc": [{"text": text} for text in table["body"].to_pylist()], "language_score": [0.9] * 4_000})
    dated = dated.append_column("day", pa.array([0] * 4_000, pa.timestamp("us")))
    pq.write_table(dated, tmp_path / "docs.parquet")
    (tmp_path / "mine.yaml").unlink()
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 1 and "has no column of ratings (it has doc, language_score, day)" in refused.stderr
    pq.write_table(dated.append_column("clarity", table["clarity"]), tmp_path / "docs.parquet")
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert read(tmp_path / "mine.yaml", ComparisonForm).data.text_column == "doc.text"


@pytest.mark.parametrize("command", ["compare", "ladder"])
def test_a_precision_that_needs_a_gpu_is_refused_before_anything_is_prepared(command, file, tmp_path):
    asked = yaml.safe_load(file.read_text())
    del asked["train"]["precision"]  # as an example says nothing of it
    if command == "ladder":
        del asked["train"]["tokens"], asked["stop"]
    file.write_text(yaml.safe_dump(asked))
    refused = CliRunner().invoke(app, [command, str(file)])
    assert refused.exit_code == 1 and "train.precision=bf16 needs a GPU" in refused.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_machine_without_a_gpu_is_told_what_its_cpu_takes(device, file, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.cli.compare.has_gpu", lambda: False)
    monkeypatch.setattr("infra.cli.compare.visible_gpus", list)
    monkeypatch.setattr("flows.comparison.Hands.train", lambda *_: sys.exit(9))
    asked = yaml.safe_load(file.read_text())
    asked["train"]["device"] = device
    file.write_text(yaml.safe_dump(asked))
    said = CliRunner().invoke(app, ["compare", str(file)])
    assert said.exit_code == 9, said.output
    assert f"Everything is kept under {(tmp_path / 'root').as_uri()}" in said.stderr
    assert "$0" in said.stderr and "on 2 cores of an AMD EPYC" in said.stderr and "H100" not in said.stderr


def until(process, words):
    """Read the command's lines until one has these words; returns the lines."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return seen
    pytest.fail(f"{words!r} was not said: {seen}")


@pytest.mark.slow
def test_killed_stopped_and_run_again_it_ends_in_one_verdict(file, tmp_path):
    def start():
        command = [sys.executable, "-m", "infra.cli", "compare", str(file), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start()
    until(killed, "top-d1-s1-")
    until(killed, "step 16 of 32")
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    stopped = start()
    lines = until(
        stopped, "1 of 4 runs completed, 1 running, 2 waiting. The first look is taken at 2 replicates an arm."
    )
    assert any("1 lost" in line for line in lines)
    assert not any("step 8 of 32" in line for line in lines if "top-d1-s1-" in line), "trained from the checkpoint on"
    stopped.send_signal(signal.SIGTERM)
    assert "run the same command again to resume" in stopped.communicate(timeout=90)[1]
    assert stopped.returncode == 75
    ended = start()
    out, err = ended.communicate(timeout=300)
    assert ended.returncode == 0, err
    assert "top minus rand at 2 replicates: " in err and "go on." in err
    verdict = json.loads(out)
    assert verdict["comparisons"][0]["seeds"] == 3 and verdict["report"].endswith("report.html")
    assert [look["replicates"] for look in verdict["registered"]["looks"]] == [2, 3]
    found = {entry.seed: entry for entry in ledger.entries(Root(tmp_path / "root")) if entry.arm == "top"}
    assert [attempt.state for attempt in found[1].attempts] == ["lost", "completed"]
    assert {entry.state for entry in found.values()} == {"completed"}
    again = start()
    assert json.loads(again.communicate(timeout=60)[0])["comparisons"] == verdict["comparisons"]


@pytest.mark.slow
def test_columns_and_questions_that_come_later_need_no_training(file, tmp_path):
    """Strata by a column, and near copies of questions by arm, of runs that were trained before either was asked for."""
    asked = yaml.safe_load(file.read_text())
    asked |= {"stop": None, "replicates": 2, "train": {**asked["train"], "tokens": 8_192}}
    shown = []
    for more in ({}, {"strata": [FACTUAL], "questions": "bundle"}):
        file.write_text(yaml.safe_dump(asked | more))
        done = CliRunner().invoke(app, ["compare", str(file), "--json"])
        assert done.exit_code == 0, done.stderr
        shown.append(json.loads(done.stdout))
        entries = {entry.run: entry.updated for entry in ledger.entries(Root(tmp_path / "root"))}
        shown[-1]["entries"] = entries
    before, after = shown
    assert before["entries"] == after["entries"], "nothing was trained again"
    (pair,) = after["comparisons"]
    parts = [row for row in pair["strata"] if row["column"] == FACTUAL]
    assert len(parts) == 5 and sum(row["documents"] for row in parts) == 40
    assert pair["low"] == before["comparisons"][0]["low"], "what decides is not moved"
    found = [(row["label"], row["what"].partition("-")[0], row["documents"]) for row in after["near"]]
    assert found == [
        ("top", "holdout", 40),
        ("rand", "holdout", 40),
        ("top", "questions", 555),
        ("rand", "questions", 555),
    ]
    assert after["registered"]["later"][-1]["strata_columns"] == [FACTUAL], "asked for after a look, and said so"


@pytest.mark.slow
def test_two_gpus_share_the_runs_and_the_scoring(file, tmp_path, monkeypatch):
    """As nvidia-smi shows them: PyTorch finds none, so two trainers of their own share the CPU."""
    (tmp_path / "bin").mkdir()
    shows = tmp_path / "bin" / "nvidia-smi"
    shows.write_text(f"#!/bin/sh\nprintf 'GPU-{os.getpid()}-a\\nGPU-{os.getpid()}-b\\n'\n")
    shows.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shows.parent}:{os.environ['PATH']}")
    experiment = yaml.safe_load(file.read_text())
    del experiment["train"]["device"], experiment["stop"]
    experiment["texts"] = [{"name": "seen", "url": experiment["data"]["source"], "documents": 16}]
    file.write_text(yaml.safe_dump(experiment | {"replicates": 2}))
    ended = CliRunner().invoke(app, ["compare", str(file), "--json"])
    assert ended.exit_code == 0, ended.stderr
    root = Root(tmp_path / "root")
    runs = [entry.run for entry in ledger.entries(root)]
    lines = [read_metrics(root.path(RunFolder(run).file(METRICS))) for run in runs]
    at_work = sorted((each[0]["time"], each[-1]["time"]) for each in lines)
    assert len(runs) == 4 and any(begins < ends for (_, ends), (begins, _) in pairwise(at_work))
    assert all(root.names(f"runs/{run}/outside") for run in runs)
