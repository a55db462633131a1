"""What `fabrating prepare` tells a person about files that it left out."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from tests.corpus.corpora import rated_texts

SETTINGS = {
    "skip_bad_files": "true",
    "vocab_size": "300",
    "holdout_documents": "10",
    "holdout_fraction": "0.2",
    "tokenizer_characters": "50000",
}


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_file_that_was_skipped_is_named(form: list[str], tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pq.write_table(rated_texts(100), tmp_path / "raw/good.parquet")
    (tmp_path / "raw/broken-part.parquet").write_bytes(b"PAR1" + b"x" * 500 + b"PAR1")
    given = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    given += ["--root", str(tmp_path / "root"), "--select", "all", "--sequence-length", "64", *form]
    made = CliRunner().invoke(app, ["prepare", str(tmp_path / "raw"), *given])
    assert made.exit_code == 0, made.output
    assert "broken-part.parquet" in made.output
