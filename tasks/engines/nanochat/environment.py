"""The environment that nanochat runs in: its checkout, its interpreter, the GPUs that its PyTorch sees."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.check import Identity, require
from tasks.engines.ranks import alone
from tasks.errors import InputError

SECONDS_TO_IMPORT = 300
PRIVATE = ("AZURE_", "FABRATING_", "PREFECT_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that upstream has no use for: credentials of the store, and what would lead its Python to our packages."""
PROBE = """
import json, sys
import nanochat.checkpoint_manager, nanochat.dataloader, nanochat.engine, nanochat.loss_eval, scripts.base_eval, wandb, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
gpus = [[p.name, p.total_memory, str(getattr(p, "uuid", i)), [p.major, p.minor]] for i, p in enumerate(gpus)]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda or "none", "gpus": gpus}))
"""


@dataclass(frozen=True)
class TorchGpu:
    """A GPU as PyTorch sees it; `memory` in bytes, `capability` as in (9, 0)."""

    name: str
    memory: int
    uuid: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Environment:
    """Where and with what nanochat runs."""

    source: Path
    python: Path
    identity: Identity
    torch: str
    gpus: tuple[TorchGpu, ...]
    cuda: str | None = None
    """Version that PyTorch was built for, or "none"."""

    def devices(self, device: str, count: int, precision: str) -> tuple[TorchGpu, ...]:
        """The GPUs of a run, none for a CPU. Raises InputError when there are too few, or they lack the precision."""
        if device == "cpu" or (device == "auto" and not self.gpus):
            if precision != "fp32":
                raise InputError(f"precision is {precision}, but nanochat computes on a CPU in fp32 only: set fp32.")
            return ()
        if len(self.gpus) < count:
            raise InputError(
                f"gpus is {count}, but the PyTorch in {self.python} sees {len(self.gpus)} here: lower it, or check the "
                "driver."
            )
        chosen = self.gpus[:count]
        old = next((gpu for gpu in chosen if gpu.capability < ((8, 9) if precision == "fp8" else (8, 0))), None)
        if old is not None and precision != "fp32":
            raise InputError(f"precision is {precision}, which the GPU {old.name} does not have: set another one.")
        known = self.identity.known
        if precision == "fp8" and known is not None and not known.fp8:
            raise InputError(f"precision is fp8, which nanochat {known.commit[:10]} does not offer: set bf16.")
        if precision == "fp32" and known is not None and not known.dtype_variable:
            raise InputError(
                f"precision is fp32, which nanochat {known.commit[:10]} does not offer on a GPU: set bf16."
            )
        return chosen


def find_environment(base: Path, environment: Mapping[str, str] = os.environ) -> Environment:
    """The environment that FABRATING_NANOCHAT_HOME names, after importing upstream once in it.

    `base`: a folder for NANOCHAT_BASE_DIR. Raises InputError when the variable is not set, the folder is no checkout that
    can be trained with, its interpreter is missing or something cannot be imported.
    """
    home = environment.get(contract.HOME_VARIABLE)
    if not home:
        raise InputError(
            f"engine is nanochat, but {contract.HOME_VARIABLE} is not set: set it to a checkout of {contract.REPOSITORY} "
            f"at {contract.PINNED.commit} with its environment in .venv, or set engine to builtin."
        )
    source = Path(home).expanduser().absolute()
    identity = require(source, allow_unknown=environment.get(contract.ALLOW_VARIABLE) == "1")
    # Not resolved: the link in a virtual environment is what makes it one.
    python = (
        Path(environment.get(contract.PYTHON_VARIABLE) or source / ".venv" / "bin" / "python").expanduser().absolute()
    )
    if not python.is_file():
        raise InputError(
            f"nanochat's interpreter {python} does not exist: run `uv sync --extra gpu` in {source}, or set "
            f"{contract.PYTHON_VARIABLE}."
        )
    base.mkdir(parents=True, exist_ok=True)
    facts = _probe(python, source, child_environment(environment) | {contract.BASE_VARIABLE: str(base)})
    gpus = tuple(TorchGpu(name, memory, uuid, tuple(capability)) for name, memory, uuid, capability in facts["gpus"])
    return Environment(source, python, identity, facts["torch"], gpus, facts["cuda"])


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what is private to FabRating, and as for a process that is no rank."""
    return {name: value for name, value in alone(environment).items() if not name.startswith(PRIVATE)}


def _probe(python: Path, source: Path, environment: Mapping[str, str]) -> dict:
    try:
        done = subprocess.run(
            [str(python), "-c", PROBE],
            cwd=source,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_IMPORT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"nanochat's interpreter {python} does not answer ({error}): reinstall its environment."
        ) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"nanochat cannot be imported by {python} ({reason}): run `uv sync --extra gpu` in {source}.")
    return json.loads(done.stdout.strip().splitlines()[-1])
