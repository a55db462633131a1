"""From rated documents to a scored model without a server: on a folder and on blobs, with the same rows at the end."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from infra.local import azurite
from tasks.store.access import open_blobs
from tasks.store.root import Root

SHARE = 0.05
PREPARE = f"--select top --share {SHARE} --order best-first --seed 1 --sequence-length 64 --json".split()
POOL = ["vocab_size=512", "holdout_documents=40", "holdout_fraction=0.1", "tokenizer_characters=200000"]
TRAIN = ["--depth", "1", "--json"]
TRAINING = ["window_pattern=L", "batch_tokens=2048", "device=cpu", "eval_every=50", "save_every=50", "wandb=disabled"]
SCORED = ["pedagogical_structure_average", "factual_accuracy_average", "lesson_engagement_average"]


def run(*arguments):
    """Run a subcommand in this process; returns its JSON."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def settings(fields):
    return [part for field in fields for part in ("--set", field)]


def prepare(source, root):
    return run("prepare", source, "--root", root, *PREPARE, *settings(POOL))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root with a space")


@pytest.fixture(scope="module")
def prepared(sample, root):
    return prepare(sample, root)


@pytest.fixture(scope="module")
def trained(prepared, root):
    return run("train", prepared["arm"], "--root", root, *TRAIN, *settings(TRAINING))


def test_the_arm_takes_the_best_documents_best_first(prepared, sample, root):
    table = pa.concat_tables(pq.read_table(p, columns=["text", *SCORED]) for p in sorted(sample.glob("*.parquet")))
    composite = np.mean([np.nan_to_num(table[name].to_numpy().astype(float)) for name in SCORED], axis=0)
    by_text = dict(zip(table["text"].to_pylist(), composite, strict=True))
    folder = root / "arms" / prepared["arm"] / "text"
    *shards, holdout = sorted(folder.glob("shard_*.parquet"))
    taken = [by_text[t] for shard in shards for t in pq.read_table(shard)["text"].to_pylist()]
    held = set(pq.read_table(holdout)["text"].to_pylist())
    assert taken == sorted(taken, reverse=True)
    left = sorted((score for text, score in by_text.items() if text not in held), reverse=True)
    np.testing.assert_allclose(taken, left[: len(taken)], rtol=1e-9)
    assert len(taken) == pytest.approx(SHARE * len(by_text), abs=5)


def test_the_text_pass_reads_the_text_column_and_no_more(prepared, sample, root):
    files = [pq.ParquetFile(path).metadata for path in sample.glob("*.parquet")]
    columns = [f.row_group(g).column(c) for f in files for g in range(f.num_row_groups) for c in range(f.num_columns)]
    text = sum(column.total_compressed_size for column in columns if column.path_in_schema == "text")
    read = Root(root).find(f"arms/{prepared['arm']}/text").facts["bytes_read"]
    assert 0 < read <= 1.02 * text
    assert read < 0.3 * sum(path.stat().st_size for path in sample.glob("*.parquet"))


def test_a_second_preparation_reuses_the_first(prepared, sample, root):
    again = prepare(sample, root)
    assert again["text"]["created"] == prepared["text"]["created"]
    assert again["packed"]["created"] == prepared["packed"]["created"]


def test_training_uses_every_row_once_and_scores_every_document(prepared, trained, root):
    facts, packed = trained["facts"], prepared["packed"]["facts"]
    rows_a_step = 2048 // 64
    assert facts["tokens"] == packed["rows"] // rows_a_step * rows_a_step * 64
    scores = pq.read_table(root / trained["name"] / "scores.parquet")
    assert len(scores) == prepared["text"]["facts"]["holdout_documents"]
    bits = scores["nats"].to_numpy().sum() / np.log(2) / scores["bytes"].to_numpy().sum()
    assert facts["bpb"] == pytest.approx(bits, rel=1e-6)
    assert len(facts["bpb_by_decile"]) == 10


def test_the_ledger_and_the_manifests_can_be_read(trained, root):
    (entry,) = run("runs", "--root", root, "--json")
    assert entry["state"] == "completed"
    assert trained["name"] == f"runs/{entry['run']}/result"
    shown = run("inspect", trained["name"], "--root", root, "--json")
    assert shown == trained


def test_scoring_again_gives_the_same_numbers(trained, root):
    again = run("score", trained["name"].split("/")[1], "--root", root, "--json")
    assert again["facts"]["bpb"] == pytest.approx(trained["facts"]["bpb"], rel=1e-6)


def test_texts_from_elsewhere_are_scored_like_the_holdout(prepared, trained, root, tmp_path):
    """The holdout's own texts, given from outside, cost what they cost in the result."""
    texts = pq.read_table(root / "pools" / prepared["pool"] / "holdout" / "documents.parquet")["text"].to_pylist()
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    name = trained["name"].split("/")[1]
    texts = ("--texts", tmp_path, "--texts-name", "same", "--column", "body")
    arguments = ("score", name, "--root", root, *texts, "--json")
    scored = run(*arguments)
    assert scored["name"].startswith(f"runs/{name}/outside/same-")
    assert scored["facts"]["bpb"] == pytest.approx(trained["facts"]["bpb"], rel=1e-6)
    ours, theirs = (pq.read_table(root / made["name"] / "scores.parquet") for made in (scored, trained))
    np.testing.assert_allclose(ours["nats"].to_numpy(), theirs["nats"].to_numpy(), rtol=1e-4)
    assert run(*arguments)["created"] == scored["created"]


def test_a_finished_run_is_asked_questions_without_training(trained, root, tmp_path):
    name = trained["name"].split("/")[1]
    asked = run("score", name, "--root", root, "--questions", "bundle", "--json")
    assert asked["name"].startswith(f"runs/{name}/questions/bundle-")
    answers = pq.read_table(root / asked["name"] / "answers.parquet")
    bits = answers["nats"].to_numpy().sum() / np.log(2) / answers["bytes"].to_numpy().sum()
    assert asked["facts"]["bpb"] == pytest.approx(bits, rel=1e-6) and len(answers) == asked["facts"]["questions"] > 400
    assert asked["facts"]["accuracy"] == pytest.approx(np.mean(answers["right"].to_pylist()))
    assert run("score", name, "--root", root, "--questions", "bundle", "--json")["created"] == asked["created"]


def test_blobs_and_folders_give_the_same_rows(prepared, container, tmp_path, root):
    other = prepare(container, tmp_path / "root")
    assert other["pool"] != prepared["pool"]  # other ETags
    rows = [
        (base / "arms" / made["arm"] / "packed" / "64-split" / "rows.bin").read_bytes()
        for base, made in ((root, prepared), (tmp_path / "root", other))
    ]
    assert rows[0] == rows[1]


def test_artifacts_can_lie_in_a_container(prepared, container, azurite_port, tmp_path, monkeypatch, root):
    monkeypatch.setenv("FABRATING_CACHE", str(tmp_path / "one machine"))
    made = prepare(container, "az://raw/artifacts")
    monkeypatch.setenv("FABRATING_CACHE", str(tmp_path / "another"))
    packed = Root("az://raw/artifacts").open(f"arms/{made['arm']}/packed/64-split")
    ours = root / "arms" / prepared["arm"] / "packed" / "64-split" / "rows.bin"
    assert (packed.path / "rows.bin").read_bytes() == ours.read_bytes()


def test_uploading_again_leaves_blobs_as_they_are(container, azurite_port, sample, tmp_path):
    assert azurite.upload(azurite_port, "raw", "docs", sample) == 0
    fewer = tmp_path / "fewer"
    shutil.copytree(sample, fewer)
    next(iter(fewer.glob("*.parquet"))).unlink()
    azurite.upload(azurite_port, "raw", "other", sample)
    assert azurite.upload(azurite_port, "raw", "other", fewer) == 0
    assert len(open_blobs("az://raw/other").list()) == len(list(fewer.glob("*.parquet")))
