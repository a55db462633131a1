"""`make setup`: one clear sentence where it cannot go on, nothing to do where it is done, and what comes next."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local.deploy import PROJECT


@pytest.fixture
def checkout(tmp_path):
    """The files that setup needs, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    (folder / "infra").mkdir(parents=True)
    for name in ("infra/setup.sh", "infra/package-lock.json", "requirements.lock", "pyproject.toml", "Makefile"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def setup(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(checkout / "infra" / "setup.sh")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def python(folder: Path, name: str, script: str) -> Path:
    """An executable that answers as a Python would."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_python_that_is_too_old_is_named(checkout, tmp_path):
    old = python(tmp_path, "python3.9", "exit 1")
    result = setup(checkout, PYTHON=str(old))
    assert result.returncode == 1
    assert (
        result.stderr.strip()
        == f"setup: PYTHON={old} is not Python 3.11, 3.12 or 3.13: set it to one, or leave it unset."
    )


def test_a_machine_without_python_gets_a_sentence(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "cat", "grep"):
        (tools / tool).symlink_to(shutil.which(tool))
    python(tools, "python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    result = setup(checkout, PATH=str(tools), PYTHON="")
    assert result.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13 was found (Python 3.9.2): install one" in result.stderr


def test_a_python_without_venv_gets_a_sentence(checkout, tmp_path):
    bare = python(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1;; *hashlib*) echo hash;; *) exit 0;; esac')
    result = setup(checkout, PYTHON=str(bare))
    assert result.returncode == 1
    assert "cannot make virtual environments: install its venv package" in result.stderr


@pytest.fixture
def finished(checkout, tmp_path):
    """A checkout that is set up, and the Python that set it up."""
    python3 = python(tmp_path, "python3", 'case "$2" in *hashlib*) echo hash;; esac')
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").write_text("hash\n")
    (checkout / "infra" / "node_modules").mkdir()
    shutil.copy(checkout / "infra" / "package-lock.json", checkout / "infra" / "node_modules" / ".ready")
    return checkout, python3


def make(checkout: Path, python3: Path, *goals: str) -> str:
    command = ["make", "--no-print-directory", "-C", str(checkout), f"PYTHON={python3}", *goals]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_setup_says_what_comes_next(finished):
    first, then = make(*finished, "setup").splitlines()
    assert first.startswith("setup: ready. Next: make demo (two arms and a verdict), ")
    assert "fabrating is .venv/bin/fabrating" in then


def test_setup_on_the_way_to_another_goal_says_nothing(finished):
    assert make(*finished, "PYTHON_ENV=true", "lint") == ""


def git(*arguments: str | Path) -> None:
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def test_scripts_keep_their_line_endings_whatever_git_is_told(checkout, tmp_path):
    """With CRLF, `sh` stops at the first line of setup.sh."""
    shutil.copy(PROJECT / ".gitattributes", checkout)
    git("init", checkout)
    git("-C", checkout, "add", ".")
    git("-C", checkout, "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-m", "Add the scripts")
    clone = tmp_path / "clone"
    git("clone", "-c", "core.autocrlf=true", checkout, clone)
    assert b"\r" not in (clone / "infra" / "setup.sh").read_bytes() + (clone / "Makefile").read_bytes()


def test_the_lock_pins_everything_without_build_labels():
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    assert not any("+" in line or "file:" in line or "://" in line for line in pins)
    names = {line.split("==")[0].lower() for line in pins}
    assert {"prefect", "torch", "pyarrow", "obstore", "tokenizers", "pytest", "ruff"} <= names


def test_the_npm_lock_names_no_registry():
    text = (PROJECT / "infra" / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert '"azurite": "3.35.0"' in text
