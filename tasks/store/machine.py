"""What tells machines apart. A hostname does not: rented hosts share theirs, and images of one machine its machine id."""

import hashlib
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")
NUMBERS = Path("/proc/self/ns/pid")


def boot() -> str:
    """The kernel's name for this boot, or "unknown"."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else "unknown"


def machine() -> str:
    """Twelve characters for the place where a process number has a meaning: machine id, boot, and namespace of processes.

    Containers of one host differ, and so does a host after a reboot, which has ended all its processes. The machine id
    itself is confidential and not in it.
    """
    identity = MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else ""
    numbers = str(NUMBERS.readlink()) if NUMBERS.is_symlink() else ""
    return hashlib.sha256("\n".join((identity, boot(), numbers)).encode()).hexdigest()[:12]
