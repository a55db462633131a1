"""One attempt at a run, in the trainer's own process: from a job to a result, or to a checkpoint when asked to stop."""

import contextlib
import logging
import os
import time
import uuid

import psutil
import torch

from tasks.engines.builtin import metrics
from tasks.engines.builtin.checkpoint import Checkpoints
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import Holdout
from tasks.engines.builtin.loop import Loop
from tasks.engines.builtin.result import build_result
from tasks.engines.builtin.sample import sample
from tasks.engines.builtin.setup import build, describe, newest, restore, size
from tasks.engines.ranks import StopRequest
from tasks.records.job import Job, open_inputs
from tasks.records.layout import JOB, METRICS, TOKENIZER, RunFolder
from tasks.records.scaling import parameter_counts
from tasks.store.artifact import Artifact, verify
from tasks.store.locks import gpu_lock, hold
from tasks.store.root import Root

log = logging.getLogger(__name__)
COMPILED = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Compiled kernels are kept under the root's folder: the next attempt and the next run of this shape start with them."""
MIRROR_GRACE = 15.0
"""Seconds that an interrupted run gives to copying its last checkpoint to a remote root."""


def attempt(job: Job, world: World, stop: StopRequest) -> Artifact | bool:
    """Train until the end or until `stop`. Returns the result (on the first rank; True on others), False when stopped.

    Raises InputError or DamagedError before anything expensive, BusyError when the GPU or the run is in use, TrainingError
    when training cannot go on.
    """
    root = job.open_root()
    folder = root.path(RunFolder(job.run).folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        if world.leads:
            held.enter_context(hold(folder / ".lock", f"The run {job.run}", job.run))
        if world.device.type == "cuda":  # a CPU is shared
            gpu = torch.cuda.get_device_properties(world.device)
            held.enter_context(hold(gpu_lock(str(gpu.uuid)), f"GPU {world.device.index} ({gpu.name})", job.run))
        return _attempt(root, job, world, stop)


def _attempt(root: Root, job: Job, world: World, stop: StopRequest) -> Artifact | bool:
    training = job.experiment.training
    folder = root.path(RunFolder(job.run).folder)
    for variable, kind in COMPILED.items():
        os.environ.setdefault(variable, str(root.folder / ".compiled" / kind))
    inputs = open_inputs(root, job)
    if world.leads:  # a flipped byte is no error to a trainer: it would learn it
        verify(inputs.packed.path, inputs.packed.manifest)
    fingerprints = inputs.fingerprints(job)
    sized = size(job, inputs, world)
    found = newest(root, job, fingerprints, world)
    start = found.step if found else 0
    learner = build(job, sized, world.device, initialize=found is None)
    if found:
        restore(learner, found, world)
    holdout = Holdout.of(inputs.evaluation)
    kept = world.share(metrics.resume(root, job.run, start) if world.leads else None)
    about = describe(job, sized, learner, world)
    log.info("%s", ", ".join(f"{key} {value}" for key, value in about.items()))
    written = metrics.Metrics(folder / METRICS, enabled=world.leads)
    written.write("event", start, event="resumed" if found else "started", **about)
    checkpoints = Checkpoints(
        root,
        job.run,
        fingerprints,
        world.share(uuid.uuid4().hex[:8]),
        rank=world.rank,
        ranks=world.size,
        keep_last=training.keep_last,
        keep_every=training.keep_every,
        mirrored=(folder / METRICS, folder / JOB),
        last=start or None,
    )

    def first_step() -> None:
        waited = time.time() - psutil.Process().create_time()
        written.write("event", start + 1, event="first_step", seconds=round(waited, 2))
        log.info("first step %.1f s after the start of the process", waited)

    loop = Loop(
        training,
        sized,
        learner,
        holdout,
        world,
        checkpoints,
        written,
        stop,
        {line["step"] for line in kept if line["kind"] == "eval"},
        found.state["seconds"] if found else 0.0,
        first_step,
    )
    finished = False
    try:
        nats = loop.run(start)
        finished = nats is not None
    finally:
        checkpoints.close(None if finished else MIRROR_GRACE)
    if nats is None:
        return False
    if not world.leads:
        return True
    samples = sample(
        learner.compute.logits,
        holdout,
        inputs.tokenizer.path / TOKENIZER,
        training.sequence_length,
        world.device,
    )
    written.write("event", sized.plan.iterations, event="finished")
    written.close()
    facts = {
        "steps": sized.plan.iterations,
        "tokens": sized.plan.tokens,
        "rows": sized.plan.iterations * sized.batch.rows,
        "rows_left": sized.rows_left,
        "wall_seconds": loop.seconds,
        "device": about["device"],
        "gpus": world.size,
        "compute": about["compute"],
        "depth": training.depth,
        "sequence_length": training.sequence_length,
        "batch_tokens": sized.plan.batch_tokens,
        "parameters": parameter_counts(sized.config).total,
    }
    return build_result(root, job, fingerprints, nats, holdout.documents, samples, facts, folder / METRICS)
