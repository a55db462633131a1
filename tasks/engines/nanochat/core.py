"""CORE, the mean of 22 tasks of DCLM (arXiv 2406.11794), by nanochat's own evaluation on the final weights of a run.

The weights are written in nanochat's format and its `scripts.base_eval` runs on them in its own environment. The questions
come from its evaluation bundle, which must already be on the host: a folder `eval_bundle` with core.yaml, eval_meta_data.csv and
eval_data/. Accuracy per task, plain and centered: 0 is guessing, 1 is all correct.
"""

import csv
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.engines.locks import hold_run
from tasks.engines.nanochat import contract
from tasks.engines.nanochat.environment import Environment, child_environment, find_environment
from tasks.engines.nanochat.exchange import export_checkpoint
from tasks.engines.nanochat.launch import DTYPES
from tasks.errors import DamagedError, InputError, TrainingError
from tasks.records.layout import RunFolder
from tasks.records.result import ScoreFacts
from tasks.spec import Training
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root

log = logging.getLogger(__name__)
SCRIPT = "scripts.base_eval"
BUNDLE = "eval_bundle"
PARTS = ("core.yaml", "eval_meta_data.csv", "eval_data")
BUNDLE_VARIABLE = "FABRATING_CORE_BUNDLE"
CORE = "CORE"
LOG = "core.txt"


def evaluate(root: Root, run: str, max_per_task: int | None = None) -> Artifact:
    """The artifact `runs/<run>/core`: facts `core`, and accuracy and centered accuracy of each task.

    `max_per_task`: so many questions of each task, the same ones for every run; None: all. What nanochat prints is in
    `runs/<run>/core.txt`. Raises InputError when the run has not finished, or bundle or nanochat are not here, BusyError when
    the GPU is in use, TrainingError when nanochat's evaluation fails.
    """
    result = root.find(RunFolder(run).result)
    if result is None:
        raise InputError(f"The run {run} has not finished: train it to its end, then evaluate it.")
    bundle = find_bundle()
    training = Training.model_validate(result.spec["training"])
    step = ScoreFacts.of(result).steps
    folder = root.path(RunFolder(run).folder)

    def make(work: Work) -> None:
        base = folder / ".core"
        shutil.rmtree(base, ignore_errors=True)
        try:
            environment = find_environment(base)
            (base / BUNDLE).symlink_to(bundle)
            export_checkpoint(root, run, base, step=step)
            table = _run(environment, base, run, training, step, max_per_task, folder / LOG)
            shutil.copyfile(table, work.temporary("core.csv"))
        finally:
            shutil.rmtree(base, ignore_errors=True)  # the link goes, not what it points at
        work.finish("core.csv")
        work.facts.update(read_table(work.path / "core.csv"), commit=environment.identity.name)

    inputs = {"result": result, "bundle": fingerprint(bundle)}
    return root.build(RunFolder(run).core, make, spec={"max_per_task": max_per_task}, inputs=inputs)


def find_bundle(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of the questions: FABRATING_CORE_BUNDLE, else where nanochat keeps it. Raises InputError when it is not there."""
    base = Path(environment.get(contract.BASE_VARIABLE) or Path.home() / ".cache" / "nanochat")
    bundle = Path(environment.get(BUNDLE_VARIABLE) or base / BUNDLE).expanduser().absolute()
    missing = [part for part in PARTS if not (bundle / part).exists()]
    if missing:
        raise InputError(
            f"nanochat's evaluation bundle is not in {bundle} (no {missing[0]}): unpack the eval_bundle.zip that "
            f"{SCRIPT} of nanochat names there, or set {BUNDLE_VARIABLE} to its folder."
        )
    return bundle


def fingerprint(bundle: Path) -> str:
    """Ten hexadecimal digits of all files of the bundle: runs are compared on the same questions."""
    digest = hashlib.sha256()
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        digest.update(path.relative_to(bundle).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:10]


def read_table(path: Path) -> dict[str, Any]:
    """`core`, and `tasks`: {name: {accuracy, centered}}, of the table that nanochat writes. Raises DamagedError for another."""
    tasks: dict[str, dict[str, float]] = {}
    core = None
    try:
        with path.open(newline="") as file:
            _, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        for name, accuracy, centered in rows:
            if name == CORE:
                core = float(centered)
            else:
                tasks[name] = {"accuracy": float(accuracy), "centered": float(centered)}
    except ValueError as error:
        raise DamagedError(f"{path} is not the table that nanochat writes ({error}): evaluate again.") from error
    if core is None or not tasks:
        raise DamagedError(f"{path} has no row {CORE}: evaluate again.")
    return {"core": core, "tasks": tasks}


def _run(
    environment: Environment,
    base: Path,
    run: str,
    training: Training,
    step: int,
    max_per_task: int | None,
    output: Path,
) -> Path:
    """Run nanochat's evaluation on one GPU or the CPU; returns its table."""
    devices = environment.devices(training.device, 1, training.precision)
    options = {"--eval": "core", "--model-tag": run, "--step": step}
    options |= {"--device-type": "cuda" if devices else "cpu", "--max-per-task": max_per_task or -1}
    command = [str(environment.python), "-m", SCRIPT, *(f"{name}={value}" for name, value in options.items())]
    variables = child_environment(os.environ) | {
        contract.BASE_VARIABLE: str(base),
        contract.DTYPE_VARIABLE: DTYPES[training.precision],
        "PYTHONUNBUFFERED": "1",
    }
    if devices:
        variables["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    log.info("evaluating %s; its log is %s", run, output)
    with hold_run(run, base.parent, {gpu.uuid: gpu.name for gpu in devices}) as inherit, output.open("wb") as written:
        done = subprocess.run(
            command,
            cwd=environment.source,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            pass_fds=inherit,
        )
    if done.returncode:
        lines = output.read_text(errors="replace").strip().splitlines()
        raise TrainingError(
            f"nanochat's evaluation of {run} ended with status {done.returncode} ({lines[-1][:300] if lines else 'no output'}): "
            f"read {output} and evaluate again."
        )
    return base / "base_eval" / f"base_model_{step:06d}.csv"
