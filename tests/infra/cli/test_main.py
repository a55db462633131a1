"""The command as a module, for where the console script is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import FUNCTIONS, app


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "inspect", "arms/x/text", "--root", "file:///dev/null/x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("fabrating: There is no root /dev/null/x: check the name")


def test_a_locale_of_another_encoding_changes_nothing(tmp_path):
    (tmp_path / "experiment.yaml").write_text("# d’été\nnäme: a\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "compare", "experiment.yaml"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stderr.startswith("fabrating: experiment.yaml, line 2: näme cannot be used")


@pytest.mark.parametrize("arguments", [["--version"], ["estimate", "2B", "--root", ".", "--json"]])
def test_an_output_that_is_full_is_named_and_not_the_root(tmp_path, arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "fabrating: The output cannot be written (No space left on device): "
        "send it elsewhere or make room for it, then run the same command again.\n"
    )


def test_an_output_that_is_closed_is_none():
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m infra.cli --version >&-', sys.executable],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_command_says_what_it_does(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0 and len(shown.stdout.splitlines()) > 5


def test_version_is_said():
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0 and shown.stdout.startswith("fabrating ")


def test_tokens_are_asked_as_people_write_them(tmp_path):
    command = ["estimate", "2B", "--root", str(tmp_path), "--json"]
    assert json.loads(CliRunner().invoke(app, command).stdout)["tokens"] == pytest.approx(2e9, rel=1e-3)
    refused = CliRunner().invoke(app, ["estimate", "2X", "--root", str(tmp_path)])
    assert refused.exit_code and "write 2000000000, 2e9 or 2B" in refused.stderr


def test_an_arm_that_is_not_there_is_said_to_be_missing(tmp_path):
    refused = CliRunner().invoke(app, ["train", "top16-0123456789", "--root", str(tmp_path)])
    assert refused.exit_code == 1 and "There is no arm 'top16-0123456789'" in refused.stderr
