"""What a host is: system, architecture, GPUs and driver, memory, disk, clock, and what it lacks."""

import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

from tasks.errors import InputError
from tasks.hosts.machine import Machine
from tasks.spec import Host

ARCHITECTURES = ("x86_64", "aarch64")
SKEW_SECONDS = 120
"""More makes signed blob URLs and TLS fail: refused."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi shows it; memory in MiB."""

    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True)
class Facts:
    """What was found on a host. `skew_seconds` is its clock minus ours; `missing` names commands and headers.
    `others` names things in a folder that is not ours, `noexec` tells of a disk whose programs may not be run.

    `python` is one that our packages support, `maker` one of any version that can make environments.
    """

    home: str
    folder: str
    user: str
    system: str
    distribution: str
    architecture: str
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    writable: bool
    privilege: str
    services: str
    python: str | None
    maker: str | None
    uv: str | None
    missing: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    gpu_problem: str | None
    skew_seconds: float
    others: tuple[str, ...] = ()
    noexec: bool = False


def script(name: str) -> str:
    """The text of a script or template of `tasks/hosts/scripts`, with Unix line endings."""
    return (files("tasks.hosts.scripts") / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def identify(machine: Machine, folder: str) -> Facts:
    """Look at a machine, changing nothing. `folder` is where the installation lies or shall lie."""
    before = time.time()
    result = machine.run(script("identify.sh"), folder.removeprefix("~/"))
    middle = (before + time.time()) / 2
    found: dict[str, list[str]] = defaultdict(list)
    for line in result.out.splitlines():
        name, _, value = line.partition("=")
        found[name].append(value.strip())

    def one(name: str, default: str = "") -> str:
        return found[name][0] if found[name] else default

    gpus = []
    for line in found["gpu"]:
        name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
        gpus.append(Gpu(name, int(memory) if memory.isdigit() else 0, driver))
    return Facts(
        home=one("home"),
        folder=one("folder"),
        user=one("user"),
        system=one("system", "unknown"),
        distribution=one("distribution"),
        architecture=one("architecture"),
        cores=int(one("cores", "1")),
        memory_bytes=int(one("memory_bytes", "0")),
        disk_free_bytes=int(one("disk_free_bytes", "0")),
        writable=one("writable") == "yes",
        privilege=one("privilege", "none"),
        services=one("services", "supervised"),
        python=one("python") or None,
        maker=one("maker") or None,
        uv=one("uv") or None,
        missing=tuple(dict.fromkeys(found["missing"])),
        gpus=tuple(gpus),
        gpu_problem=one("gpu_problem") or None,
        # The clock is read in whole seconds somewhere within the call: half a second of it is rounding.
        skew_seconds=round(int(one("clock", "0")) + 0.5 - middle, 1),
        others=tuple(found["others"]),
        noexec=one("noexec") == "yes",
    )


def require(host: Host, facts: Facts, disk_bytes: int) -> None:
    """Compare what was found with what is asked, before anything is changed. Raises InputError for the first misfit.

    `disk_bytes` is what the installation still has to write.
    """
    if facts.architecture not in ARCHITECTURES:
        raise InputError(
            f"{host.name} is a {facts.architecture} machine: PyTorch's builds that FabRating uses are for x86_64 and aarch64."
        )
    if abs(facts.skew_seconds) > SKEW_SECONDS:
        raise InputError(
            f"The clock of {host.name} is {facts.skew_seconds:+.0f} s off ours, and signed blob URLs fail beyond minutes: set "
            "it (`sudo timedatectl set-ntp true`)."
        )
    if not facts.writable:
        raise InputError(
            f"{facts.user} on {host.name} cannot write to {facts.folder}: give another folder or change its owner."
        )
    if facts.others:
        raise InputError(
            f"{host.name} has other things in {facts.folder} ({', '.join(facts.others)}, ...): give a folder that is new or empty, "
            f"such as {facts.folder}/fabrating."
        )
    if facts.noexec:
        raise InputError(f"{facts.folder} on {host.name} is on a disk mounted noexec: give a folder on another disk.")
    if len(facts.gpus) < host.gpus:
        found = facts.gpu_problem or f"nvidia-smi shows {len(facts.gpus)} of them"
        raise InputError(
            f"{host.name} was asked for {host.gpus} GPU(s) but {found}: install the NVIDIA driver, or give gpus="
            f"{len(facts.gpus)}."
        )
    if facts.disk_free_bytes < disk_bytes:
        raise InputError(
            f"{host.name} has {facts.disk_free_bytes / 1e9:.1f} GB free for {facts.folder} and the installation needs about "
            f"{disk_bytes / 1e9:.1f} GB: free some space there, or give a folder on a larger disk."
        )
