"""Checkpoints between the built-in trainer and nanochat, both ways: weights, configuration and tokenizer.

The two use the same names and shapes. Optimizers differ in how they are divided among ranks and stay behind: an exchanged
checkpoint can be evaluated, sampled from and fine-tuned, not resumed.
"""

from pathlib import Path

from tasks.engines.builtin import checkpoint
from tasks.engines.nanochat import contract
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.engines.nanochat.weights import read_weights, write_weights
from tasks.engines.trained import open_checkpoint
from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.records.scaling import choose_batch
from tasks.store.artifact import Artifact, Sources
from tasks.store.root import Root


def export_checkpoint(root: Root, run: str, base: Path, step: int | None = None, tag: str | None = None) -> Path:
    """Write a checkpoint of the built-in trainer, and the pool's tokenizer, where nanochat's own scripts find them.

    `base`: nanochat's base directory (NANOCHAT_BASE_DIR); `step`: None for the newest; `tag`: nanochat's --model-tag, by
    default the run's id. Returns the folder of the checkpoint. Raises InputError when there is no such run or checkpoint.
    """
    found = open_checkpoint(root, run, step)
    training, config, step = found.job.experiment.training, found.shape, found.step
    lines = read_metrics(root.path(RunFolder(run).file(METRICS)))
    scored = [line["bpb"] for line in lines if line["kind"] == "eval" and line["step"] == step]
    folder = contract.checkpoint_folder(base, tag or run)
    export_tokenizer(found.tokenizer.path, base)
    meta = {"val_bpb": scored[-1] if scored else None, "total_batch_size": choose_batch(config, training.batch_tokens)}
    write_weights(folder, step, found.state(), config, meta)
    return folder


def import_checkpoint(root: Root, run: str, folder: Path, step: int, inputs: Sources, rows: int) -> Artifact:
    """nanochat's weights of `step` in `folder` as the artifact `runs/<run>/checkpoints/step_<step>` of the built-in trainer.

    `rows`: what it was trained on, made from `inputs`. Without its optimizer such a checkpoint can be scored and sampled from,
    not trained on. Raises InputError when its model is not the one that the built-in trainer knows.
    """
    state, _ = read_weights(folder, step)
    return checkpoint.build_imported(root, run, state, inputs, step, rows)
