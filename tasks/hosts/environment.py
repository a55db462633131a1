"""What a host needs before a worker can run: Debian packages, a Python environment from the lock file, nanochat's own."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.errors import InputError
from tasks.hosts.facts import Facts, script
from tasks.hosts.machine import Machine
from tasks.hosts.wheel import CHECKOUT
from tasks.spec import Host
from tasks.store.artifact import sha256_file

INSTALL_SECONDS = 3_600
TORCH_INDEX = "https://download.pytorch.org/whl"
CUDA = ((580, ""), (525, f"{TORCH_INDEX}/cu126"))
"""(least driver, index of a build of PyTorch for it), the newest first; NVIDIA's compatibility table for CUDA 13 and 12.

PyPI has the build for CUDA 13, for x86-64 and aarch64 alike: no other index is needed then.
"""
PYTHON = "3.12"
"""The Python that uv fetches where the host has none that our packages support."""

DEBIAN = {
    "rsync": "rsync",
    "git": "git",
    "cc": "gcc libc6-dev",
    "flock": "util-linux",
    "setsid": "util-linux",
    "base64": "coreutils",
    "sha256sum": "coreutils",
    "venv": "python3-venv",
    "Python.h": "python3-dev",
}
"""Debian package of each command or header that `identify` looks for."""

GPU_DISK = 14_000_000_000
CPU_DISK = 3_000_000_000
PREPARED_DISK = 200_000_000
NANOCHAT_DISK = 10_000_000_000
"""Bytes of an installation: environment with CUDA, without, beside a prepared one; nanochat's own environment."""


def disk_need(host: Host) -> int:
    """Bytes that a first installation writes."""
    if host.python_environment:
        return PREPARED_DISK
    base = GPU_DISK if host.gpus else CPU_DISK
    return base + (NANOCHAT_DISK if "nanochat" in host.engines else 0)


def lacking(host: Host, facts: Facts) -> list[str]:
    """What must still be installed on the host, by the names that `identify` uses. rsync and a compiler are always wanted."""
    needed = {"rsync", "flock", "setsid", "base64", "sha256sum"}
    if host.gpus:
        needed |= {"cc"}  # torch.compile builds its kernels' launchers
    if host.gpus and not host.python_environment and facts.privilege != "none":
        needed |= {"Python.h"}  # where it cannot be installed, uv fetches a Python that has it
    if not host.python_environment and not facts.uv:
        needed |= {"venv"}
    if "nanochat" in host.engines and not Path(host.nanochat_source).expanduser().is_file():
        needed |= {"git"}
    return [name for name in facts.missing if name in needed]


def install_packages(machine: Machine, facts: Facts, names: Sequence[str]) -> str:
    """Install Debian packages for the names that `lacking` gave. Raises InputError where the account may not."""
    packages = list(dict.fromkeys(" ".join(DEBIAN[name] for name in names).split()))
    if facts.privilege == "none":
        raise InputError(
            f"{machine.label} lacks {', '.join(names)} and {facts.user} may not install packages: ask its administrator for "
            f"`apt-get install {' '.join(packages)}`."
        )
    if not {"debian", "ubuntu"} & set(facts.distribution.split()):
        raise InputError(
            f"{machine.label} lacks {', '.join(names)} and runs {facts.system}, where packages are not installed by FabRating: "
            f"install them by hand (on Debian: {' '.join(packages)})."
        )
    machine.run(script("packages.sh"), facts.privilege, *packages, timeout=INSTALL_SECONDS)
    return f"installed {', '.join(packages)}"


def require_links(machine: Machine, host: Host) -> None:
    """Raises InputError where find_links is a folder that the host's account cannot read. URLs are for the tools to ask."""
    links = host.find_links or ""
    path = unquote(urlsplit(links).path) if links.startswith("file:") else links
    if path.startswith("/") and machine.run('[ -r "$1" ]', path, check=False).status != 0:
        raise InputError(
            f"find_links is {links}, but {machine.label} has no such folder that its account can read: give the path of one on the "
            "host, or a URL."
        )


def torch_index(host: Host, facts: Facts) -> str:
    """The package index with the build of PyTorch for the host, "" for the host's own index.

    Raises InputError for a driver that no build supports.
    """
    if host.torch_index or host.find_links:
        return host.torch_index or ""
    if not host.gpus:
        return f"{TORCH_INDEX}/cpu"
    driver = facts.gpus[0].driver
    major = int(driver.split(".")[0]) if driver.split(".")[0].isdigit() else 0
    for least, index in CUDA:
        if major >= least:
            return index
    raise InputError(
        f"{host.name} has NVIDIA driver {driver}, and PyTorch's builds need {CUDA[-1][0]} or later: update the driver."
    )


def lock_file(checkout: Path = CHECKOUT) -> tuple[str, str]:
    """(requirement of torch, the other requirements as text) of the lock file. Raises InputError when it is not there."""
    path = checkout / "requirements.lock"
    if not path.is_file():
        raise InputError(f"The lock file {path} does not exist: run from a checkout, or give python_environment.")
    lines = [line.strip() for line in path.read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith(("#", "-"))]
    torch = [pin for pin in pins if re.match(r"torch==", pin)]
    if not torch:
        raise InputError(f"The lock file {path} does not pin torch: make it again.")
    # CUDA's libraries and Triton belong to the build of torch, which brings its own; cuDNN's frontend is ours.
    torchs = r"(torch|triton|nvidia-(?!cudnn-frontend=)[a-z0-9-]+|cuda-[a-z0-9-]+|fabrating)\b"
    rest = [pin for pin in pins if not re.match(torchs, pin)]
    return torch[0], "\n".join(rest) + "\n"


def interpreter(host: Host, facts: Facts) -> str:
    """The Python of the environment: the host's, or the version that uv is to fetch (it has headers, which kernels need)."""
    headless = host.gpus and "Python.h" in facts.missing
    return PYTHON if facts.python is None or headless else facts.python


def environment_recipe(host: Host, facts: Facts) -> dict[str, Any]:
    """What the Python environment is made from: with another recipe it is installed again, and from an empty folder for another PyTorch."""
    if host.python_environment:
        return {"prepared": host.python_environment}
    torch, rest = lock_file()
    return {
        "torch": torch,
        "index": torch_index(host, facts),
        "find_links": host.find_links,
        "lock": hashlib.sha256(rest.encode()).hexdigest(),
    }


def install_environment(machine: Machine, host: Host, facts: Facts) -> str:
    """Make folder/venv: from the lock file, or beside a prepared environment."""
    arguments = [facts.folder, (host.python_environment or "").rstrip("/"), interpreter(host, facts), *_uv(facts)]
    if not host.python_environment:
        torch, rest = lock_file()
        machine.put(rest, f"{facts.folder}/requirements.txt", 0o644)
        arguments += [torch, torch_index(host, facts), host.find_links or ""]
    machine.run(_script("overlay.sh", "uv.sh", "environment.sh"), *arguments, timeout=INSTALL_SECONDS)
    return f"made from {'the environment ' + host.python_environment if host.python_environment else 'the lock file'}"


def install_wheel(machine: Machine, facts: Facts, wheel: Path) -> str:
    """Upload our own package, compare its SHA-256 there, install it. Raises CommandError when it arrived damaged."""
    digest = sha256_file(wheel)
    there = f"{facts.folder}/wheels/{wheel.name}"
    machine.put(wheel.read_bytes(), there, 0o644)
    arrived = machine.run('sha256sum "$1"', there).out.split()[0].lstrip("\\")
    if arrived != digest:
        raise ConnectionError(f"{wheel.name} arrived on {machine.label} with SHA-256 {arrived}, not {digest}.")
    machine.run(_script("uv.sh", "install.sh"), facts.folder, there, *_uv(facts), timeout=300)
    return f"installed {wheel.name} (SHA-256 {digest[:12]})"


FLASH = {
    "fa3": ("flash-attn-3",),
    "fa4": (
        "flash-attn-4==4.0.0b36",
        "nvidia-cutlass-dsl==4.8.1",
        "nvidia-cutlass-dsl-libs-base==4.8.1",
        "nvidia-cutlass-dsl-libs-core==4.8.1",
        "nvidia-cutlass-dsl-libs-cuCUDA==4.8.1",
        "quack-kernels==0.6.5",
        "apache-tvm-ffi==0.1.15.post2",
        "torch-c-dlpack-ext==0.1.5",
        "einops==0.8.2",
    ),
}
"""Packages of Flash Attention, with what they need beside PyTorch; CUDA is the number of its version. Version 3 is in no package index: a
wheel that was built for the host's PyTorch and CUDA lies in find_links. Version 4 (BSD; NVIDIA's compiler below it has a licence of its
own) is for any PyTorch."""


def flash_wanted(host: Host) -> tuple[str, ...]:
    """Which of them are looked for on a host: those that are asked for, or that there may be a wheel of."""
    if not host.gpus or host.attention == "cudnn":
        return ()
    if host.attention != "auto":
        return (host.attention,)
    return ("fa3", "fa4") if host.find_links else () if host.python_environment else ("fa4",)


def flash_recipe(host: Host, facts: Facts) -> list[Any]:
    """What is looked for, where."""
    return [flash_wanted(host), FLASH, host.find_links, environment_recipe(host, facts)]


NOTHING_FITS = 69
"""Exit status of attention.sh where whoever was asked for a wheel has none, as `tell` of uv.sh tells it from a network that fails."""


@dataclass(frozen=True)
class Flash:
    """What became of the Flash Attentions that were looked for: those installed, what to say, and whether some were out of reach."""

    installed: tuple[str, ...]
    text: str
    unreached: bool


def install_flash(machine: Machine, host: Host, facts: Facts) -> Flash:
    """Install what `flash_wanted` names, as far as there are wheels.

    Raises InputError where there is none of what was asked for, ConnectionError where that is out of reach.
    """
    said, installed, unreached = [], [], False
    for name in flash_wanted(host):
        links, index = host.find_links or "", "index" if name == "fa4" and not host.python_environment else ""
        done = machine.run(
            _script("uv.sh", "attention.sh"), facts.folder, *_uv(facts), links, index, *FLASH[name], check=False,
            timeout=INSTALL_SECONDS,
        )  # fmt: skip
        if done.status == 0:
            installed.append(name)
            said.append(f"{name} is installed")
        elif done.status == NOTHING_FITS:
            if host.attention == name:
                raise InputError(
                    f"attention is {name}, but {machine.label} cannot have it (there is no wheel for it: {done.last}): put a wheel for its "
                    "PyTorch and CUDA into find_links, or give attention=auto."
                )
            said.append(f"no {name} (there is no wheel for this host: {done.last})")
        else:
            if host.attention == name:
                raise ConnectionError(
                    f"attention is {name}, but {machine.label} could not install it ({done.last}): check find_links and the host's way to "
                    "the package index, or give attention=auto."
                )
            unreached = True
            said.append(f"no {name} yet (it could not be installed: {done.last}; the next gpu-host tries again)")
    return Flash(tuple(installed), "; ".join(said), unreached)


def probe(machine: Machine, facts: Facts, gpus: int) -> dict[str, Any]:
    """Versions and GPUs as the new environment sees them. Raises InputError when it computes on fewer than `gpus`."""
    result = machine.run(
        'cd /; exec "$1/venv/bin/python" -I -c "$2" "$3"', facts.folder, script("probe.py"), gpus, timeout=300
    )
    seen = json.loads(result.out.splitlines()[-1])
    absent = [name for name, version in seen["versions"].items() if version is None]
    if absent:
        raise InputError(
            f"The environment of {machine.label} lacks {', '.join(absent)}: complete it, or leave python_environment empty."
        )
    if seen["computed"] < gpus:
        raise InputError(
            f"PyTorch {seen['versions']['torch']} (CUDA {seen['cuda']}) on {machine.label} computes on {seen['computed']} of "
            f"{gpus} GPU(s): give a torch_index that fits the driver, or gpus={seen['computed']}."
        )
    return seen


def install_nanochat(machine: Machine, host: Host, facts: Facts) -> str:
    """nanochat at its pinned commit with an environment of its own, from a git URL or an archive on this machine."""
    source = host.nanochat_source
    archive = Path(source).expanduser()
    if archive.is_file():
        source = f"{facts.folder}/wheels/nanochat.tar"
        machine.put(archive.read_bytes(), source, 0o644)
    machine.run(
        _script("overlay.sh", "uv.sh", "nanochat.sh"),
        facts.folder,
        source,
        host.nanochat_commit,
        (host.python_environment or "").rstrip("/"),
        "gpu" if host.gpus else "cpu",
        *_uv(facts),
        timeout=INSTALL_SECONDS,
    )
    return f"checked out nanochat {host.nanochat_commit}"


def _script(*names: str) -> str:
    """Scripts of `tasks/hosts/scripts` as one, which holds the host's lock."""
    return "".join(script(name) for name in ("hold.sh", *names))


def _uv(facts: Facts) -> list[str]:
    """What get_uv of uv.sh needs: the host's uv, and a Python that can install one."""
    return [facts.uv or "", facts.maker or ""]
