"""`fabrating doctor`: what this machine, its credentials, stores and Prefect have, what is missing and what to do about it."""

import os
from pathlib import Path

from infra.doctor import machine, server, store
from infra.doctor.finding import Finding
from infra.local import stack
from tasks.store.root import DEFAULT_ROOT

__all__ = ["Finding", "examine"]


def examine(home: Path, root: str = DEFAULT_ROOT, data: str | None = None) -> list[Finding]:
    """Look at everything in turn; `data` defaults to FABRATING_SOURCE, else the sample of a stack that this shell knows. Nothing is left behind.

    Of a remote root it is tried whether it can be written: one empty object is put there and removed.
    """
    findings = [*machine.look(home), store.credentials(), store.wandb(), store.look("root", root, write=True)]
    if data := data or os.environ.get("FABRATING_SOURCE") or os.environ.get("FABRATING_SAMPLE"):
        findings.append(store.look("data", data))
    return [*findings, *server.look(stack.load(home))]
