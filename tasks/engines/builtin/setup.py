"""Everything between a job and its first step: inputs checked, model built, the newest checkpoint loaded."""

from dataclasses import dataclass
from typing import Any

import torch

from tasks.engines.builtin import checkpoint
from tasks.engines.builtin.compute import (
    Compute,
    build_compute,
    check_precision,
    check_tokens,
    embedding_dtype,
    fusable,
)
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.guards import available_memory, choose_micro_batch
from tasks.engines.builtin.memory import graph_bytes, memory_bytes
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import Optimizer, build_optimizer
from tasks.engines.builtin.rows import Batch, PackedRows
from tasks.errors import InputError
from tasks.records.hardware import Hardware
from tasks.records.job import Job
from tasks.records.packed import choose_rows
from tasks.records.scaling import ModelShape, TrainingPlan, budget_tokens, check_batch, plan_training
from tasks.spec import Experiment
from tasks.store.artifact import Artifact, Sources
from tasks.store.root import Root


@dataclass(frozen=True)
class RunShape:
    """What a training comes to on these devices, found out without computing anything."""

    config: ModelShape
    plan: TrainingPlan
    batch: Batch
    rows: PackedRows

    @property
    def rows_left(self) -> int:
        """Packed rows that the budget does not take, among them those that would make a last, incomplete batch."""
        return self.rows.rows - self.rows.distinct


@dataclass(frozen=True)
class Learner:
    """The model with what computes and steps it."""

    model: GPT
    compute: Compute
    optimizer: Optimizer


def shape_run(experiment: Experiment, packed: Artifact, world: World) -> RunShape:
    """Model, budget and micro-batch of a training, and the rows that it reads.

    Raises InputError for whatever cannot work, naming what would.
    """
    training = experiment.training
    if training.engine != "builtin":
        raise InputError(f"engine is {training.engine}: this trainer runs engine=builtin only.")
    if training.gpus != world.size:
        raise InputError(f"gpus is {training.gpus}, but {world.size} processes were started: make them equal.")
    check_precision(training.precision, world.device)
    config = ModelShape.of(training, packed.facts["vocab_size"])
    rows, arm = packed.facts["rows"], experiment.arm
    budget = budget_tokens(training, packed.facts["vocab_size"])
    plan = plan_training(config, budget, training.batch_tokens, rows, arm.epochs)
    batch_rows = check_batch(plan.batch_tokens, training.sequence_length, world.size)
    chosen = choose_rows(
        rows,
        plan.iterations * batch_rows,
        training,
        experiment.seed_of("sample"),
        shuffled=arm.order == "shuffled",
        epochs=arm.epochs,
        order_seed=experiment.seed_of("order"),
    )
    micro = choose_micro_batch(
        training.micro_batch,
        batch_rows // world.size,
        training.sequence_length,
        world.device,
        lambda rows: (
            memory_bytes(config, training.precision, rows, world.size, training.compile and fusable(config))
            + (graph_bytes(config, rows) if world.device.type == "cuda" and world.size == 1 else 0)
        ),
        available_memory(world.device) // (world.size if world.device.type == "cpu" else 1),
    )
    check_tokens(training.precision, micro, training.sequence_length)
    return RunShape(config, plan, Batch(batch_rows, world.size, world.rank, micro), PackedRows.of(packed, chosen))


def build_learner(root: Root, job: Job, inputs: Sources, shape: RunShape, world: World) -> tuple[Learner, int]:
    """The model on its device, and the steps it has finished: from the newest checkpoint, else with fresh weights by the seed.

    `inputs`: what the checkpoint must have been trained on.
    """
    training = job.experiment.training
    found = _newest(root, job.run, inputs, world)
    model = GPT(shape.config, embedding_dtype(training.precision))
    if found is None:
        model.init_weights(job.experiment.seed_of("init"))
    model.to(world.device)
    compute = build_compute(model, training.precision, training.compile, training.deterministic, training.attention)
    learner = Learner(model, compute, build_optimizer(model, shape.plan, training.recipe))
    if found is None:
        return learner, 0
    _restore(learner, found, world)
    return learner, found.step


def _newest(root: Root, run: str, inputs: Sources, world: World) -> checkpoint.Checkpoint | None:
    """The checkpoint to resume from, the same on every rank; rank 0 verifies (and downloads) it."""
    found = checkpoint.find(root, run, inputs) if world.leads else None
    step = world.share(found.step if found else None)
    if step is None or found is not None:
        return found
    return checkpoint.load(root, run, step)


def _restore(learner: Learner, found: checkpoint.Checkpoint, world: World) -> None:
    """Load weights, optimizer, scales and random states of a checkpoint that any number of ranks wrote."""
    learner.model.load_state_dict(found.model())
    shards = found.shards()
    learner.optimizer.load_state({name: t for shard in shards for name, t in shard["optimizer"].items()})
    own = shards[world.rank] if world.rank < len(shards) else shards[0]
    learner.compute.load_state_dict(own["compute"])
    learner.compute.invalidate()
    torch.set_rng_state(own["random"]["cpu"].clone())
    if "cuda" in own["random"] and world.device.type == "cuda":
        torch.cuda.set_rng_state(own["random"]["cuda"].clone())


def snapshot(learner: Learner, leads: bool) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """Weights (on the first rank) and this rank's shard, copied to host memory."""
    shard = {
        "optimizer": checkpoint.to_host(learner.optimizer.local_state()),
        "compute": checkpoint.to_host(learner.compute.state_dict()),
        "random": {"cpu": torch.get_rng_state()},
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        shard["random"]["cuda"] = torch.cuda.get_rng_state()
    return (checkpoint.to_host(learner.model.state_dict()) if leads else {}), shard


def describe(run: str, shape: RunShape, hardware: Hardware, world: World) -> dict[str, Any]:
    """What a person wants to know at the start, for the log and the first event."""
    return {
        "run": run,
        "device": hardware.device,
        "gpus": world.size,
        "compute": hardware.compute,
        "steps": shape.plan.iterations,
        "batch_tokens": shape.plan.batch_tokens,
        "micro_batch": shape.batch.micro,
        "tokens_planned": shape.plan.tokens,
        "rows": shape.rows.rows,
        "rows_left": shape.rows_left,
    }


def hardware_of(learner: Learner, world: World) -> Hardware:
    """What this process computes with."""
    return Hardware(
        device=torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu",
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "none",
        compute=learner.compute.description,
    )
