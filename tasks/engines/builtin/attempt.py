"""One attempt at a run, in the trainer's own process: from a job to a result, or to a checkpoint when asked to stop."""

import logging
import os
import uuid
from dataclasses import asdict

import torch

from tasks.engines.builtin.checkpoint import Checkpoints
from tasks.engines.builtin.compute import compile_ahead
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import EncodedHoldout
from tasks.engines.builtin.loop import Loop
from tasks.engines.builtin.sample import sample
from tasks.engines.builtin.setup import build_learner, describe, hardware_of, shape_run
from tasks.engines.inputs import open_inputs
from tasks.engines.locks import hold_attempt
from tasks.engines.ranks import StopRequest
from tasks.engines.results import build_result
from tasks.records.hardware import settle
from tasks.records.job import Job
from tasks.records.layout import JOB, METRICS, TOKENIZER, RunFolder
from tasks.records.metrics import MetricsLog, cut_back
from tasks.records.packed import TrainedText, read_contents
from tasks.records.result import TrainedFacts
from tasks.records.scaling import ModelShape, parameter_counts
from tasks.store.artifact import verify
from tasks.store.root import Root

log = logging.getLogger(__name__)
COMPILED = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": "flash",
}
"""Kinds of compiled kernels that are kept, by the variables that say where."""
MIRROR_GRACE = 15.0
"""Seconds that an interrupted run gives to copying its last checkpoint to a remote root."""


def attempt(job: Job, world: World, stop: StopRequest, began: float, verified: bool = False) -> bool:
    """Train until the end or until `stop`. Returns whether the run is finished; its result is then complete.

    `began`: when the attempt was started, as `time.time` has it. `verified`: whoever did has compared the checksums of the rows.
    Raises InputError or DamagedError before anything expensive, BusyError when the GPU or the run is in use, SupersededError
    when another host took the run over while this one was cut off, DiskError when nothing can be written, TrainingError when training
    cannot go on.
    """
    root = job.open_root()
    gpus = {}
    if world.device.type == "cuda":  # a CPU is shared
        found = torch.cuda.get_device_properties(world.device)
        gpus[str(found.uuid)] = f"{world.device.index} ({found.name})"
    with hold_attempt(root, job.run, gpus, world.leads):
        return _train(root, job, world, stop, began, verified)


def _train(root: Root, job: Job, world: World, stop: StopRequest, began: float, verified: bool) -> bool:
    training, run = job.experiment.training, RunFolder(job.run)
    metrics_file = root.path(run.file(METRICS))
    for variable, kind in COMPILED.items():
        os.environ.setdefault(variable, str(root.compiled / kind))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")  # it keeps nothing by itself
    inputs = open_inputs(root, job)
    config = ModelShape.of(training, inputs.packed.facts["vocab_size"])
    with compile_ahead(config, training.precision, training.compile, world, stop.asked):
        if world.leads and not verified:  # a flipped byte is no error to a trainer: it would learn it
            verify(inputs.packed.path, inputs.packed.manifest)
        shape = shape_run(job.experiment, inputs.packed, world)
        learner, start = build_learner(root, job, inputs.by_role, shape, world)
        holdout = EncodedHoldout.of(inputs.evaluation, inputs.strata)
    kept = world.share(cut_back(root, run.id, start) if world.leads else None)
    evaluated = {line["step"] for line in kept if line["kind"] == "eval"}
    hardware = hardware_of(learner, world)
    if job.comparison and world.leads:
        settle(root, job.comparison, training, job.pool_id, run.id, hardware)
    about = describe(run.id, shape, hardware, world)
    log.info("%s", ", ".join(f"{key} {value}" for key, value in about.items()))
    metrics = MetricsLog(metrics_file, enabled=world.leads)
    metrics.begin(start, **about)
    checkpoints = Checkpoints(
        root,
        run.id,
        inputs.by_role,
        world.share(uuid.uuid4().hex[:8]),
        rank=world.rank,
        ranks=world.size,
        keep_last=training.keep_last,
        keep_every=training.keep_every,
        mirrored=(metrics_file, root.path(run.file(JOB))),
        last=start or None,
    )
    scores = None
    try:
        scores = Loop(training, shape, learner, holdout, world, checkpoints, metrics, stop, evaluated, began).run(start)
    finally:
        checkpoints.close(None if scores is not None else MIRROR_GRACE)
    if scores is None:
        return False
    if world.leads:
        tokenizer = inputs.tokenizer.path / TOKENIZER
        samples = sample(learner.compute.logits, holdout, tokenizer, training.sequence_length, world.device)
        metrics.write("event", shape.plan.iterations, event="finished")
        metrics.close()
        contents = read_contents(inputs.packed.path)
        trained = TrainedFacts(
            **asdict(
                TrainedText.of(contents, shape.rows.chosen, inputs.packed.facts["bytes"], job.experiment.arm.epochs)
            ),
            steps=shape.plan.iterations,
            tokens=shape.plan.tokens,
            rows=shape.rows.distinct,
            rows_left=shape.rows_left,
            batch_tokens=shape.plan.batch_tokens,
            parameters=parameter_counts(shape.config).total,
            **asdict(hardware),
        )
        build_result(root, job, inputs.by_role, trained, scores, samples)
    return True
