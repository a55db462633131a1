"""`.env` beside the project is read wherever a credential is: for a local root, the Hub, W&B, Azure, and by every command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
READERS = {
    "WANDB_API_KEY": "from tasks.reports.wandb_run import api_key; api_key()",
    "HF_TOKEN": "from tasks.store.access import open_blobs; open_blobs('hf://organisation/data')",
    "AZURE_STORAGE_ACCOUNT": "from tasks.store.access import open_blobs; open_blobs('az://container')",
    "PREFECT_API_AUTH_STRING": "from infra.cli.main import app; app(['runs', '--json'])",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a `.env` of its own."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("tasks", "flows", "infra"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (folder / ".env").write_text("".join(f"{name}=from-file\n" for name in READERS))
    return folder


@pytest.mark.parametrize("name", READERS)
def test_it_is_read_from_any_folder_and_yields_to_the_environment(copy: Path, tmp_path: Path, name: str) -> None:
    code = f"try:\n    {READERS[name]}\nexcept (Exception, SystemExit):\n    pass\n"
    code += f"import json, os; print(json.dumps([os.environ[name] for name in {list(READERS)}]))"
    clean = {key: value for key, value in os.environ.items() if key not in READERS}
    environment = clean | {"PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"}
    for given in ({}, {name: "from-shell"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        found = dict(zip(READERS, json.loads(done.stdout.splitlines()[-1]), strict=True))
        assert found == dict.fromkeys(READERS, "from-file") | given
