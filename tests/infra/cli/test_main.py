"""The command as a module, for where the console script is not installed."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from infra.cli.main import app


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "inspect", "arms/x/text", "--root", "file:///dev/null/x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("fabrating: The root file:///dev/null/x cannot be used")


@pytest.mark.parametrize("command", [command.callback.__name__ for command in app.registered_commands])
def test_every_command_says_what_it_does(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0 and len(shown.stdout.splitlines()) > 5
