"""`fabrating doctor`: what this machine has, what is missing and what to do about it."""

import importlib.util
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from infra import azurite, stack

FREE_BYTES = 5 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: good, worth knowing, or in the way."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str

    def row(self) -> dict[str, str]:
        return asdict(self)


def examine(home: Path) -> list[Finding]:
    """Look at Python, packages, disk, Node.js, GPU and the local stack; nothing is changed."""
    return [_python(), _packages(), _disk(home), _node(), _gpu(), _store(), *_stack(home)]


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("Python", "good" if good else "bad", sys.version.split()[0])


def _packages() -> Finding:
    needed = ("prefect", "torch", "pyarrow", "obstore", "tokenizers", "wandb")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("packages", "bad", f"{', '.join(missing)} missing: run sh infra/setup.sh")
    return Finding("packages", "good", "installed")


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return Finding("disk", "good" if free >= FREE_BYTES else "note", f"{free / 1e9:,.0f} GB free at {place}")


def _node() -> Finding:
    if azurite.available():
        return Finding("Azurite", "good", "installed; the demo reads az:// URLs")
    return Finding("Azurite", "note", "not installed (needs Node.js, then sh infra/setup.sh); the demo reads a folder")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "good", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return Finding("GPU", "note", "none: only small models train here")


def _store() -> Finding:
    if stack.own_azure():
        return Finding("storage account", "good", "configured in the environment or in .env")
    return Finding("storage account", "note", "none configured: az:// URLs reach the local Azurite only")


def _stack(home: Path) -> list[Finding]:
    found = stack.load(home)
    if found is None or not found.alive("server"):
        return [Finding("local stack", "note", "not running: make up")]
    names = ("server", *(["azurite"] if found.azurite_port else []), *(f"worker-{pool}" for pool in found.pools))
    return [
        Finding(name, "good", f"process {found.pids[name]}")
        if found.alive(name)
        else Finding(name, "bad", "gone: make up")
        for name in names
    ]
