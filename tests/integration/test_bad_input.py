"""Bad input at the command line: one sentence that names it, exit status 1, nothing written."""

import errno
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra.cli import terminal
from infra.cli.main import app


def refused(root, *arguments):
    """Run a subcommand that must fail; returns its one sentence."""
    result = CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--root", str(root)])
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("fabrating: ")
    assert line.endswith((".", "?"))
    assert not list(Path(root).glob("arms/*/text"))
    return line


def test_a_folder_that_is_not_there(tmp_path):
    assert "/nowhere does not exist" in refused(tmp_path, "prepare", "/nowhere")


def test_a_folder_without_parquet_files(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no files ending in .parquet" in refused(tmp_path, "prepare", tmp_path / "empty")


def test_a_file_that_is_not_parquet_is_named(tmp_path, sample):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "good.parquet").symlink_to(next(iter(sample.glob("*.parquet"))))
    (raw / "broken.parquet").write_text("these are no columns, whatever the name says")
    assert "broken.parquet" in refused(tmp_path / "root", "prepare", raw)


def test_a_missing_column_is_named(tmp_path, sample):
    raw = tmp_path / "raw"
    raw.mkdir()
    table = pq.read_table(next(iter(sample.glob("*.parquet"))))
    pq.write_table(table.drop_columns(["factual_accuracy_average"]), raw / "lacking.parquet")
    sentence = refused(tmp_path / "root", "prepare", raw)
    assert "'factual_accuracy_average'" in sentence and str(raw) in sentence
    (raw / "whole.parquet").symlink_to(next(iter(sample.glob("*.parquet"))))
    sentence = refused(tmp_path / "root", "prepare", raw)
    assert "lacking.parquet" in sentence and "'factual_accuracy_average'" in sentence


@pytest.mark.parametrize("share", ["0", "-0.5", "1.01"])
def test_a_share_outside_of_its_bounds(tmp_path, sample, share):
    sentence = refused(tmp_path, "prepare", sample, "--share", share)
    assert "share" in sentence
    assert share.rstrip("0") in sentence


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--select", "best"], "'best'"),
        (["--set", "vocab_sise=512"], "vocab_sise"),
        (["--set", "vocab_size"], "--set vocab_size has no value"),
        (["--set", "vocab_size=12"], "vocab_size"),
        (["--set", "share=0.5"], "--set share=0.5 sets what has an option of its own"),
        (["--sequence-length", "3"], "sequence_length"),
        (["--name", "Not A Name"], "'Not A Name'"),
    ],
)
def test_other_parameters_that_cannot_be(tmp_path, sample, options, named):
    assert named in refused(tmp_path, "prepare", sample, *options)


def test_an_unknown_scheme(tmp_path):
    assert "'ftp'" in refused(tmp_path, "prepare", "ftp://host/prefix")


def test_an_arm_and_a_run_that_are_not_there(tmp_path):
    assert "nothing-0123456789" in refused(tmp_path, "train", "nothing-0123456789", "--depth", "1")
    assert "nothing-0123456789" in refused(tmp_path, "score", "nothing-0123456789")
    assert "arms/x/text" in refused(tmp_path, "inspect", "arms/x/text")


def test_a_root_that_cannot_be_written(tmp_path, sample):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(tmp_path / "file", "prepare", sample)


def test_a_container_that_is_not_there(tmp_path, container):
    sentence = refused(tmp_path, "prepare", "az://nowhere/at-all")
    assert "az://nowhere/at-all cannot be listed" in sentence
    assert "Signature" not in sentence


def test_no_storage_account_is_said(tmp_path, monkeypatch):
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.setenv(name, "")
    assert "needs a storage account" in refused(tmp_path, "prepare", "az://raw/docs")


def test_a_full_disk_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as ended, terminal.plain_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "/data/arms/x")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("fabrating: No space is left at /data/arms/x: ")
