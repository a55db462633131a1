"""Checkpoints between the built-in trainer and nanochat, both ways: weights, configuration and tokenizer.

The two use the same names and shapes. Optimizers differ in how they are divided among ranks and stay behind: a checkpoint
that was exchanged can be evaluated, sampled from and fine-tuned, not gone on with.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.engines.nanochat import contract, metrics
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.engines.nanochat.weights import load_state, read_weights, write_weights
from tasks.errors import DamagedError, InputError
from tasks.records.layout import JOB, METRICS, PoolFolder, RunFolder
from tasks.records.scaling import ModelShape, choose_batch
from tasks.spec import Experiment
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root

STEP = re.compile(r"/step_(\d{6,})$")


def export_checkpoint(root: Root, run: str, base: Path, step: int | None = None, tag: str | None = None) -> Path:
    """Write a checkpoint of the built-in trainer, and the pool's tokenizer, where nanochat's own scripts find them.

    `base`: nanochat's base directory (NANOCHAT_BASE_DIR); `step`: None for the newest; `tag`: nanochat's --model-tag, by
    default the run's id. Returns the folder of the checkpoint. Raises InputError when there is no such run or checkpoint.
    """
    job = _job(root, run)
    experiment = Experiment.model_validate(job["experiment"])
    name = _checkpoint_name(root, run, step)
    artifact, tokenizer = root.open(name), root.open(PoolFolder(job["pool_id"]).tokenizer)
    training = experiment.training
    config = ModelShape.of(training, tokenizer.facts["vocab_size"])
    reached = int(STEP.search(name)[1])
    lines = metrics.read(root.path(RunFolder(run).file(METRICS)))
    scored = [line["bpb"] for line in lines if line["kind"] == "eval" and line["step"] == reached]
    folder = contract.checkpoint_folder(base, tag or run)
    export_tokenizer(tokenizer.path, base)
    meta = {"val_bpb": scored[-1] if scored else None, "total_batch_size": choose_batch(config, training.batch_tokens)}
    write_weights(folder, reached, load_state(artifact.path / "model.pt"), config, meta)
    return folder


def _job(root: Root, run: str) -> dict[str, Any]:
    """The job file of a run, here or in the remote root."""
    path = root.path(RunFolder(run).file(JOB))
    content = path.read_bytes() if path.is_file() else None
    if content is None and root.remote is not None:
        content = root.remote.read_if_exists(RunFolder(run).file(JOB))
    if content is None:
        raise InputError(f"There is no run {run} under {root.url}: check its name.")
    try:
        return json.loads(content)
    except ValueError as error:
        raise DamagedError(f"{path} is no job file ({error}): start the run again to write it anew.") from error


def _checkpoint_name(root: Root, run: str, step: int | None) -> str:
    """The artifact name of the checkpoint of a step, by default of the newest."""
    found = {int(match[1]): name for name in root.names(RunFolder(run).checkpoints) if (match := STEP.search(name))}
    if not found or (step is not None and step not in found):
        raise InputError(
            f"The run {run} has no checkpoint{'' if step is None else f' of step {step}'}: "
            f"it has {', '.join(map(str, sorted(found))) or 'none'}."
        )
    return found[max(found) if step is None else step]


def import_checkpoint(
    root: Root, run: str, folder: Path, step: int, inputs: Mapping[str, str], rows: int, seconds: float
) -> Artifact:
    """nanochat's weights of `step` in `folder` as the artifact `runs/<run>/checkpoints/step_<step>` of the built-in trainer.

    Without its optimizer: such a checkpoint can be scored and sampled from, not trained on. Raises InputError when its model
    is not the one that the built-in trainer knows.
    """
    state, meta = read_weights(folder, step)

    def make(work: Work) -> None:
        torch.save(state, work.temporary("model.pt"))
        work.finish("model.pt")
        torch.save({"optimizer": {}, "compute": {}, "random": {}}, work.temporary("optimizer_00.pt"))
        work.finish("optimizer_00.pt")
        described = {"step": step, "rows": rows, "ranks": 1, "seconds": seconds, "config": meta["model_config"]}
        work.temporary("state.json").write_text(json.dumps(described, indent=1))
        work.finish("state.json")
        work.facts.update(step=step, rows=rows)

    return root.build(RunFolder(run).checkpoint(step), make, spec={"run": run, "step": step}, inputs=inputs)
