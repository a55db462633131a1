"""`verdicts/<name>/hardware-<recipe>.json`: what the runs of a comparison are trained on, settled by the first of them to start.

A device or an attention path that differs between runs is a difference between arms, and the hosts of a work pool may differ. So
the first run of a comparison records what it computes with, and a run on anything else ends before its first step.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks.errors import InputError
from tasks.records.layout import VerdictFolder
from tasks.records.metrics import THEN
from tasks.spec import Training
from tasks.store.root import Root

PATHS = ("device", "torch", "cuda", "compute")
"""As `allow` names them."""


@dataclass(frozen=True)
class Hardware:
    """What determines the numbers of a run besides its parameters; None where it is not known in advance."""

    device: str | None
    """The GPU's name, or cpu."""
    torch: str | None
    cuda: str | None
    compute: str | None
    """Precision, kernels and attention path."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Hardware":
        """What a finished run was trained on, by the facts of its result."""
        return cls(**{path: facts.get(path) for path in PATHS})


def comparable(compute: str | None, window_pattern: str) -> str | None:
    """The part of `compute` that must be equal: without the attention backends that a host passed over, which follow a semicolon.

    Older runs of models without windows name FlexAttention beside cuDNN, though it computes windows alone.
    """
    if compute is None:
        return None
    ways = [way.partition(";")[0] for way in compute.split(THEN)]
    if "S" not in window_pattern:
        ways = [way.replace("cuDNN (full) and FlexAttention (windows)", "cuDNN") for way in ways]
    return THEN.join(dict.fromkeys(ways))


def settle(root: Root, comparison: str, training: Training, pool: str, run: str, own: Hardware) -> None:
    """Record that the runs of a comparison on a pool are trained on `own`, unless a run has recorded its hardware before.

    Raises InputError naming what differs from that.
    """
    name = VerdictFolder(comparison).hardware(training, pool)
    settled = json.loads(root.settle(name, json.dumps({"run": run, **asdict(own)}).encode()))

    def counted(path: str, value: str) -> str | None:
        return comparable(value, training.window_pattern) if path == "compute" else value

    different = [
        f"{path} {mine} instead of {settled[path]}"
        for path, mine in asdict(own).items()
        if None not in (mine, settled[path]) and counted(path, mine) != counted(path, settled[path])
    ]
    if different:
        raise InputError(
            f"{run} belongs to the comparison {comparison}, whose runs are trained on the hardware of {settled['run']}, but here it "
            f"would have {'; '.join(different)}: keep hosts of one kind in the work pool and run it again there, delete {name} if no run is complete, or allow the "
            f"difference by name (allow: {', '.join(path for path in PATHS if any(d.startswith(path + ' ') for d in different))})."
        )
