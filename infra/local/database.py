"""An empty database of the Prefect server, migrated once when the environment is set up, so that a new stack need not wait for it.

`python -m infra.local.database` makes it, beside the packages; it is one file a version of Prefect.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks.store.artifact import write_atomic

FILE = "prefect.db"
"""Its name in PREFECT_HOME."""


def prepared() -> Path:
    """Where the database for the installed version of Prefect lies, if it was made."""
    return Path(sys.prefix) / "share" / "fabrating" / f"prefect-{importlib.metadata.version('prefect')}.db"


def prepare() -> None:
    """Make it, unless it is there. Raises CalledProcessError when Prefect cannot migrate an empty database."""
    if prepared().is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env={**inherited, "PREFECT_HOME": folder}, check=True, capture_output=True)
        write_atomic(prepared(), (Path(folder) / FILE).read_bytes())


def place(prefect_home: Path) -> None:
    """Give a server that has no database yet the prepared one; without one it migrates by itself."""
    database = prefect_home / FILE
    if database.exists() or not prepared().is_file():
        return
    prefect_home.mkdir(parents=True, exist_ok=True)
    copy = database.with_name(f".{FILE}.copy")
    shutil.copyfile(prepared(), copy)
    copy.chmod(0o600)
    copy.replace(database)


if __name__ == "__main__":
    prepare()
