"""What the lock file promises to hosts of other architectures and Pythons than this machine's, asked of the package index."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.hosts.environment import lock_file
from tasks.hosts.facts import ARCHITECTURES
from tasks.hosts.wheel import CHECKOUT
from tests.hosts.lab import no_index, versions


@pytest.fixture(scope="module")
def uv() -> str:
    """The path of uv, where a package index answers."""
    if reason := no_index():
        pytest.skip(reason)
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or pytest.fail("uv is not installed")


def wheels(uv: str, pins: list[str], architecture: str, python: str, *options: str) -> list[str]:
    """What would be installed on a host, from wheels alone."""
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--no-python-downloads", "--no-header"]
    command += ["--no-annotate", "--only-binary", ":all:"]
    command += ["--python-version", python, "--python-platform", f"{architecture}-unknown-linux-gnu", *options, "-"]
    done = subprocess.run(command, input="\n".join(pins), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_hosts_get_cudnns_frontend_and_leave_cudas_libraries_to_torch(tmp_path: Path) -> None:
    lock = (CHECKOUT / "requirements.lock").read_text()
    (tmp_path / "requirements.lock").write_text(f"{lock}nvidia-cudnn-cu13==9.19.0.56\ntriton==3.6.0\n")
    _, rest = lock_file(tmp_path)
    brought = [pin.split("==")[0] for pin in rest.splitlines() if pin.startswith(("nvidia", "triton", "torch=="))]
    assert brought == ["nvidia-cudnn-frontend"]


@pytest.mark.parametrize("python", ["3.12", *(pytest.param(one, marks=pytest.mark.slow) for one in ("3.11", "3.13"))])
def test_every_pin_has_a_wheel_for_aarch64(uv: str, python: str) -> None:
    torch, rest = lock_file()
    pins = [torch, *rest.splitlines()]
    assert versions(wheels(uv, pins, "aarch64", python, "--no-deps")) == versions(pins)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_index_has_torch_for_the_newest_drivers(uv: str, architecture: str) -> None:
    """Hosts with such a driver take PyTorch from the package index: it has to be the build for CUDA 13."""
    found = versions(wheels(uv, [lock_file()[0]], architecture, "3.12"))
    assert {"torch", "triton", "nvidia-cudnn-cu13"} <= found.keys()
