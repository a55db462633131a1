"""This machine: Python, packages, disk, Node.js, GPU."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from infra.doctor.finding import Finding
from infra.local import azurite

FREE_BYTES = 5 << 30


def look(home: Path) -> list[Finding]:
    """What this machine has; `home` is the folder of the stack."""
    return [_python(), _packages(), _disk(home), _node(), _gpu()]


def _python() -> Finding:
    version = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", "good", version)
    return Finding("Python", "bad", version, "install Python 3.11, 3.12 or 3.13, then make setup")


def _packages() -> Finding:
    """Whether each package that FabRating asks for is there, in a version that it asks for."""
    wrong, right = [], 0
    for requirement in map(Requirement, importlib.metadata.requires("fabrating") or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        right += 1
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        return Finding("packages", "bad", "; ".join(wrong), "make setup")
    return Finding("packages", "good", f"{right}, as asked for; Prefect {importlib.metadata.version('prefect')}")


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:,.0f} GB free at {place}"
    if free >= FREE_BYTES:
        return Finding("disk", "good", found)
    return Finding("disk", "note", found, "free some, or set FABRATING_HOME to a folder on another disk")


def _node() -> Finding:
    if azurite.available():
        return Finding("Azurite", "good", "installed; the demo reads az:// URLs")
    return Finding(
        "Azurite",
        "note",
        "not installed; the demo reads a folder",
        "only for the demo: install Node.js, then make setup",
    )


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        return Finding("GPU", "good", f"{found}; PyTorch {torch.__version__}")
    if driver := _driver():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"
        return Finding(
            "GPU",
            "bad",
            f"PyTorch {torch.__version__} for {built} does not see {driver}",
            "update the driver, or delete .venv and run make setup for a PyTorch that fits it",
        )
    return Finding("GPU", "note", "none: only small models train here", "rent one: docs/playbook.md")


def _driver() -> str | None:
    """What NVIDIA's driver says of its GPUs, or None where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return found.strip().replace("\n", "; ") or None
