"""FabRating's own package for a host: a wheel built from the checkout this runs from.

It is built once per state of the source (fingerprint of its files) and the same source gives the same bytes, so that a
second provisioning finds the host up to date.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks.errors import InputError
from tasks.store.artifact import fingerprint, sha256_file
from tasks.store.locks import locked

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("fabrating", "tasks", "flows", "infra", "deployments")
EPOCH = "1735689600"  # 2025-01-01: a fixed time stamp in the archive


def build_wheel(folder: Path, checkout: Path = CHECKOUT) -> Path:
    """The wheel of the checkout, below `folder`. Raises InputError when this is no checkout or it cannot be built."""
    if not (checkout / "pyproject.toml").is_file():
        raise InputError(
            f"{checkout} is no checkout of FabRating (no pyproject.toml): give the wheel to install as `wheel`."
        )
    sources = _sources(checkout)
    target = folder / fingerprint([[p.relative_to(checkout).as_posix(), sha256_file(p)] for p in sources])
    with locked(folder / ".lock"):
        if found := sorted(target.glob("*.whl")):
            return found[0]
        with tempfile.TemporaryDirectory() as temporary:
            tree, built = Path(temporary) / "tree", Path(temporary) / "built"
            for path in sources:
                copy = tree / path.relative_to(checkout)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
            done = subprocess.run(
                [*command, "--wheel-dir", str(built), str(tree)],
                env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH},
                capture_output=True,
                text=True,
            )
            wheels = sorted(built.glob("*.whl"))
            if done.returncode != 0 or not wheels:
                reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise InputError(
                    f"The wheel of {checkout} could not be built ({reason}): `pip install setuptools pip` here."
                )
            target.mkdir(parents=True, exist_ok=True)
            return Path(shutil.move(wheels[0], target / wheels[0].name))


def _sources(checkout: Path) -> list[Path]:
    found = [checkout / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for package in PACKAGES:
        for path in (checkout / package).rglob("*"):
            parts = path.relative_to(checkout).parts
            if not any(part.startswith(".") or part in ("__pycache__", "node_modules") for part in parts):
                found.append(path)
    return sorted(path for path in found if path.is_file())
