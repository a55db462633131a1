"""Scoring a checkpoint again, without training: the same numbers as the run's own evaluation at that step."""

import logging

from tasks.errors import InputError
from tasks.store.artifact import Artifact, Work, code_version
from tasks.store.root import Root
from tasks.trainer import checkpoint
from tasks.trainer.compute import build_compute, embedding_dtype
from tasks.trainer.distributed import World, join
from tasks.trainer.evaluation import Holdout, evaluate, summarize
from tasks.trainer.guards import CPU_MICRO_TOKENS
from tasks.trainer.job import FILE, Job, open_inputs
from tasks.trainer.model import GPT, config_for
from tasks.trainer.result import write_json, write_scores

log = logging.getLogger(__name__)
GPU_BATCH_TOKENS = 32_768


def score_checkpoint(root: Root, run: str, step: int | None = None) -> Artifact:
    """The artifact `runs/<run>/scores/step_<step>`: scores.parquet and summary.json, like a result's.

    `step` None: the newest whole checkpoint. Raises InputError when the run or the checkpoint does not exist.
    """
    job = _job(root, run)
    training = job.experiment.training
    inputs = open_inputs(root, job)
    fingerprints = inputs.fingerprints(job)
    found = checkpoint.find(root, run, fingerprints, step)
    if found is None:
        raise InputError(f"The run {run} has no checkpoint: train it first.")

    def make(work: Work) -> None:
        world = join(training.device)
        vocab = inputs.packed.facts["vocab_size"]
        model = GPT(
            config_for(training.depth, training.sequence_length, training.window_pattern, vocab),
            embedding_dtype(training.precision),
        )
        model.load_state_dict(found.model())
        compute = build_compute(model.to(world.device), training.precision, kernels=training.compile)
        compute.load_state_dict(found.shards()[0]["compute"])
        holdout = Holdout.of(inputs.evaluation)
        nats = evaluate(compute.losses, holdout, training.sequence_length, _batch_tokens(world), world)
        summary = {
            **summarize(nats, holdout.documents),
            "steps": found.step,
            "tokens": found.state["rows"] * training.sequence_length,
            "code": code_version(),
        }
        write_scores(work, nats, holdout.documents)
        write_json(work, "summary.json", {"run": run, "arm": job.arm_id, "pool": job.pool_id, **summary})
        work.facts.update(summary)

    name = f"runs/{run}/scores/step_{found.step:06d}"
    inputs_of = {**fingerprints, "checkpoint": found.artifact.fingerprint}
    return root.build(name, make, spec=job.experiment.identity(), inputs=inputs_of)


def _batch_tokens(world: World) -> int:
    return CPU_MICRO_TOKENS if world.device.type == "cpu" else GPU_BATCH_TOKENS


def _job(root: Root, run: str) -> Job:
    """The job of a run, here or in a remote root. The root is that of the caller: the run may have moved."""
    name = f"runs/{run}/{FILE}"
    path = root.path(name)
    if not path.is_file() and root.remote is not None and (content := root.remote.read_if_exists(name)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if not path.is_file():
        raise InputError(f"There is no run {run} under {root.url}: see `fabrating runs` for their names.")
    return Job.read(path)
