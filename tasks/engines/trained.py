"""What a run left to be used: the weights of a checkpoint, the shape of its model, the tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tasks.engines.builtin import checkpoint
from tasks.errors import InputError
from tasks.records.job import Job, find_job
from tasks.records.layout import PoolFolder, RunFolder
from tasks.records.result import RunFacts
from tasks.records.scaling import ModelShape
from tasks.store.artifact import Artifact, Manifest, verify
from tasks.store.root import Root


@dataclass(frozen=True)
class Trained:
    """A checkpoint on this machine, weights alone, with what belongs to it."""

    job: Job
    step: int
    shape: ModelShape
    tokenizer: Artifact
    checkpoint: Manifest
    weights: Path
    """The file with the weights, its checksum compared."""

    @property
    def run(self) -> str:
        return self.job.run

    def state(self) -> Mapping[str, torch.Tensor]:
        """The weights by nanochat's names, mapped from the file, on the CPU. Matrices are fp32, embeddings as they were trained."""
        return checkpoint.load_tensors(self.weights)


def open_checkpoint(root: Root, run: str, step: int | None = None) -> Trained:
    """A checkpoint of a run, `step` None: the newest. Of a remote root the weights alone are fetched.

    Raises InputError when there is no such run or checkpoint, DamagedError when the weights are not those that were saved.
    """
    job = find_job(root, run)
    names = checkpoint.steps_of(root.names(RunFolder(run).checkpoints))
    if not names or (step is not None and step not in names):
        raise InputError(
            f"The run {run} has no checkpoint{'' if step is None else f' of step {step}'}: "
            f"it has {', '.join(map(str, names)) or 'none'}."
        )
    step = max(names) if step is None else step
    tokenizer = root.open(PoolFolder(job.pool_id).tokenizer)
    manifest = root.manifest(names[step])
    weights = root.file(names[step], checkpoint.MODEL)
    record = next(record for record in manifest.files if record.path == checkpoint.MODEL)
    verify(weights.parent, replace(manifest, files=(record,)))
    shape = ModelShape.of(job.experiment.training, tokenizer.facts["vocab_size"])
    return Trained(job, step, shape, tokenizer, manifest, weights)


def open_trained(root: Root, run: str) -> tuple[Trained, RunFacts]:
    """The final weights of a finished run, and its facts.

    Raises InputError when there is no such run, it has not finished, its last checkpoint is gone, or its tokenizer is no
    longer the one that it was trained with.
    """
    job = find_job(root, run)
    result = root.find(job.result)
    if result is None:
        raise InputError(f"The run {run} has not finished: train it to its end first.")
    facts = RunFacts.of(result)
    tokenizer = PoolFolder(job.pool_id).tokenizer
    found = open_checkpoint(root, run, facts.steps)
    was, now = (result.made_from or {}).get(tokenizer), found.tokenizer.manifest.content
    if was not in (None, now):
        raise InputError(
            f"The run {run} was trained with another {tokenizer} (content {was[:10]}) than there is now (content {now[:10]}): train it again."
        )
    return found, facts
