"""Checkpoints between the built-in trainer and nanochat, both ways: weights, configuration and tokenizer.

The two use the same names and shapes. Optimizers differ in how they are divided among ranks and stay behind: an exchanged
checkpoint can be evaluated, sampled from and fine-tuned, not resumed.
"""

from pathlib import Path

from tasks.engines.builtin import checkpoint
from tasks.engines.nanochat import contract
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.engines.nanochat.weights import read_weights, write_weights
from tasks.errors import InputError
from tasks.records.job import find_job
from tasks.records.layout import METRICS, PoolFolder, RunFolder
from tasks.records.metrics import read_metrics
from tasks.records.scaling import ModelShape, choose_batch
from tasks.store.artifact import Artifact, Sources
from tasks.store.root import Root


def export_checkpoint(root: Root, run: str, base: Path, step: int | None = None, tag: str | None = None) -> Path:
    """Write a checkpoint of the built-in trainer, and the pool's tokenizer, where nanochat's own scripts find them.

    `base`: nanochat's base directory (NANOCHAT_BASE_DIR); `step`: None for the newest; `tag`: nanochat's --model-tag, by
    default the run's id. Returns the folder of the checkpoint. Raises InputError when there is no such run or checkpoint.
    """
    job = find_job(root, run)
    training = job.experiment.training
    names = checkpoint.steps_of(root.names(RunFolder(run).checkpoints))
    if not names or (step is not None and step not in names):
        raise InputError(
            f"The run {run} has no checkpoint{'' if step is None else f' of step {step}'}: "
            f"it has {', '.join(map(str, names)) or 'none'}."
        )
    step = max(names) if step is None else step
    found, tokenizer = checkpoint.load(root, run, step), root.open(PoolFolder(job.pool_id).tokenizer)
    config = ModelShape.of(training, tokenizer.facts["vocab_size"])
    lines = read_metrics(root.path(RunFolder(run).file(METRICS)))
    scored = [line["bpb"] for line in lines if line["kind"] == "eval" and line["step"] == step]
    folder = contract.checkpoint_folder(base, tag or run)
    export_tokenizer(tokenizer.path, base)
    meta = {"val_bpb": scored[-1] if scored else None, "total_batch_size": choose_batch(config, training.batch_tokens)}
    write_weights(folder, step, found.model(), config, meta)
    return folder


def import_checkpoint(root: Root, run: str, folder: Path, step: int, inputs: Sources, rows: int) -> Artifact:
    """nanochat's weights of `step` in `folder` as the artifact `runs/<run>/checkpoints/step_<step>` of the built-in trainer.

    `rows`: what it was trained on, made from `inputs`. Without its optimizer such a checkpoint can be scored and sampled from,
    not trained on. Raises InputError when its model is not the one that the built-in trainer knows.
    """
    state, _ = read_weights(folder, step)
    return checkpoint.build_imported(root, run, state, inputs, step, rows)
