"""Scoring a checkpoint again, without training: the same numbers as the run's own evaluation at that step."""

import logging

from tasks.engines.builtin import checkpoint
from tasks.engines.builtin.compute import build_compute, embedding_dtype
from tasks.engines.builtin.distributed import World, join
from tasks.engines.builtin.evaluation import Holdout, evaluate, summarize
from tasks.engines.builtin.guards import CPU_MICRO_TOKENS
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.result import write_json, write_scores
from tasks.errors import InputError
from tasks.records.job import Inputs, Job, find_job, open_inputs
from tasks.records.layout import SUMMARY, PoolFolder, RunFolder
from tasks.records.scaling import ModelShape
from tasks.store.artifact import Artifact, Work, code_version
from tasks.store.root import Root

log = logging.getLogger(__name__)
GPU_BATCH_TOKENS = 32_768


def score_checkpoint(root: Root, run: str, step: int | None = None) -> Artifact:
    """The artifact `runs/<run>/scores/step_<step>`: scores.parquet and summary.json, like a result's.

    `step` None: the newest whole checkpoint. Raises InputError when the run or the checkpoint does not exist.
    """
    job = find_job(root, run)
    inputs = open_inputs(root, job)
    found = _checkpoint(root, job, inputs, step)
    return _build(root, RunFolder(run).scores(found.step), job, inputs, found, inputs.evaluation)


def score_outside(root: Root, run: str, texts: str) -> Artifact:
    """The artifact `runs/<run>/outside/<texts>`: the final weights of a finished run, scored on texts from elsewhere.

    `texts`: last part of the name of `pools/<pool>/outside/<texts>`. Raises InputError when the run has not finished, its
    last checkpoint is gone, or there are no such texts.
    """
    job = find_job(root, run)
    result = root.find(job.result)
    if result is None:
        raise InputError(f"The run {run} has not finished: train it to its end, then score it.")
    inputs, outside = open_inputs(root, job), root.open(PoolFolder(job.pool_id).outside(texts))
    if outside.manifest.inputs.get("tokenizer") != inputs.tokenizer.fingerprint:
        raise InputError(f"{outside.name} was made with another tokenizer: delete {outside.path} and score again.")
    found = _checkpoint(root, job, inputs, result.facts["steps"])
    return _build(root, RunFolder(run).outside(texts), job, inputs, found, outside)


def _checkpoint(root: Root, job: Job, inputs: Inputs, step: int | None) -> checkpoint.Checkpoint:
    found = checkpoint.find(root, job.run, inputs.fingerprints(job), step)
    if found is None:
        raise InputError(f"The run {job.run} has no checkpoint: train it first.")
    return found


def _build(
    root: Root, name: str, job: Job, inputs: Inputs, found: checkpoint.Checkpoint, evaluation: Artifact
) -> Artifact:
    """Score the documents of `evaluation` and keep that as the artifact `name`."""
    training = job.experiment.training

    def make(work: Work) -> None:
        world = join(training.device)
        shape = ModelShape.of(training, inputs.packed.facts["vocab_size"])
        model = GPT(shape, embedding_dtype(training.precision))
        model.load_state_dict(found.model())
        compute = build_compute(model.to(world.device), training.precision, kernels=training.compile)
        compute.load_state_dict(found.shards()[0]["compute"])
        holdout = Holdout.of(evaluation)
        nats = evaluate(compute.losses, holdout, training.sequence_length, _batch_tokens(world), world)
        summary = {
            **summarize(nats, holdout.documents),
            "steps": found.step,
            "tokens": found.state["rows"] * training.sequence_length,
            "code": code_version(),
        }
        write_scores(work, nats, holdout.documents)
        write_json(work, SUMMARY, {"run": job.run, "arm": job.arm_id, "pool": job.pool_id, **summary})
        work.facts.update(summary)

    made_from = inputs.fingerprints(job) | {"checkpoint": found.artifact.fingerprint}
    if evaluation.name != inputs.evaluation.name:
        made_from["outside"] = evaluation.fingerprint
    return root.build(name, make, spec=job.experiment.identity(), inputs=made_from)


def _batch_tokens(world: World) -> int:
    return CPU_MICRO_TOKENS if world.device.type == "cpu" else GPU_BATCH_TOKENS
