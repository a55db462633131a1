"""Two ready-made subsets in a container, of text alone, from their prefixes to a verdict without a server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from infra.local import azurite
from tasks.records.verdict import Verdict
from tasks.store.root import Root
from tests.corpus.corpora import write_subsets

POOL = {
    "format": "prebuilt",
    "vocab_size": 512,
    "holdout_documents": 32,
    "holdout_fraction": 0.2,
    "tokenizer_characters": 200_000,
}
TRAINING = {"window_pattern": "L", "batch_tokens": 1024, "tokens": 4_096, "device": "cpu", "wandb": "disabled"}


def run(*arguments: object, **fields: object) -> dict:
    """Run a subcommand in this process; returns its JSON."""
    given = [part for name, value in fields.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    result = CliRunner().invoke(app, [*map(str, arguments), *given, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def sources(sample: Path, azurite_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two subsets as blobs, with the credentials in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    names = write_subsets(sample, tmp_path)
    for name in names:
        azurite.upload(azurite_port, "ready", name, tmp_path / name)
    return {name: f"az://ready/{name}" for name in names}


@pytest.mark.slow  # tests/stack/test_ready.py does so with a server
def test_two_subsets_without_scores_from_prefix_to_verdict(sources: dict[str, str], tmp_path: Path) -> None:
    root, runs = tmp_path / "root", []
    for name in sources:
        made = run(
            *("prepare", "--root", root, "--select", "subset", "--order", "shuffled", "--sequence-length", 64),
            **POOL,
            subset=name,
            sources=sources,
        )
        assert made["arm"].startswith(f"{name}-")
        assert made["text"]["facts"]["shared_documents"] > 0
        trained = [run("train", made["arm"], "--root", root, "--depth", 1, "--seed", s, **TRAINING) for s in (1, 2)]
        runs.append(f"{name}={','.join(each['name'].split('/')[1] for each in trained)}")
    judged = run("judge", *runs, "--root", root, "--name", "ready")
    store = Root(root)
    verdict = Verdict.read(store.open(judged["artifact"]).path / "verdict.json")
    (pair,) = verdict.comparisons
    assert pair.covers_seeds and {pair.a, pair.b} == set(sources)
    strata = {row.label: row.documents for row in pair.strata if row.kind == "source"}
    assert set(strata) == set(sources) and sum(strata.values()) == verdict.holdout.documents == 32
    assert abs(strata["top16"] - 16) <= 2
    report = (store.path(judged["artifact"]) / "report.html").read_text()
    assert "By source" in report and all(f"{name}: {url}" in report for name, url in sources.items())
