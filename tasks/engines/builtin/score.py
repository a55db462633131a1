"""Scoring a checkpoint again, without training: the same numbers as the run's own evaluation at that step."""

from collections.abc import Mapping

from tasks.engines.builtin import checkpoint
from tasks.engines.builtin.answering import answer, open_questions
from tasks.engines.builtin.compute import Compute, build_compute, embedding_dtype
from tasks.engines.builtin.distributed import World, join
from tasks.engines.builtin.evaluation import EncodedHoldout, evaluate
from tasks.engines.builtin.guards import CPU_MICRO_TOKENS
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.sample import sample
from tasks.engines.inputs import Inputs, open_inputs
from tasks.engines.results import write_scored
from tasks.errors import InputError
from tasks.records.job import Job, find_job
from tasks.records.layout import TOKENIZER, PoolFolder, RunFolder
from tasks.records.questions import require_fit, summarize_answers, write_answers
from tasks.records.result import RunFacts, Sample
from tasks.records.scaling import ModelShape
from tasks.records.scores import scores_table
from tasks.store.artifact import Artifact, Manifest, Work, code_version, require_made_from
from tasks.store.root import Root

GPU_BATCH_TOKENS = 32_768


def score_checkpoint(root: Root, run: str, step: int | None = None) -> Artifact:
    """The artifact `runs/<run>/scores/step_<step>`: scores and facts, like a result's.

    `step` None: the newest complete checkpoint. Raises InputError when the run or the checkpoint does not exist.
    """
    job = find_job(root, run)
    inputs = open_inputs(root, job)
    found = _checkpoint(root, run, inputs, step)
    return _build(root, RunFolder(run).scores(found.step), job, inputs, found, inputs.evaluation)


def sample_checkpoint(root: Root, run: str, step: int) -> list[Sample]:
    """What the model of a checkpoint writes after the beginnings of some holdout documents. Raises InputError as `score_checkpoint` does."""
    job = find_job(root, run)
    inputs = open_inputs(root, job)
    compute, world = _load(job, inputs, _checkpoint(root, run, inputs, step))
    holdout = EncodedHoldout.of(inputs.evaluation, inputs.strata)
    length = job.experiment.training.sequence_length
    return sample(compute.logits, holdout, inputs.tokenizer.path / TOKENIZER, length, world.device)


def score_outside(root: Root, run: str, texts: str) -> Artifact:
    """The artifact `runs/<run>/outside/<texts>`: the final weights of a finished run, scored on texts from elsewhere.

    `texts`: last part of the name of `pools/<pool>/outside/<texts>`. Raises InputError when the run has not finished, its
    last checkpoint is gone, or there are no such texts.
    """
    job, result = _finished(root, run)
    inputs, outside = open_inputs(root, job), root.open(PoolFolder(job.pool_id).outside(texts))
    require_made_from(outside.manifest, inputs.tokenizer.name, inputs.tokenizer.manifest.content)
    found = _checkpoint(root, run, inputs, RunFacts.of(result).steps)
    beside = {"outside": outside.manifest, "result": result}
    return _build(root, RunFolder(run).outside(texts), job, inputs, found, outside, beside)


def score_questions(root: Root, run: str, asked: str) -> Artifact:
    """The artifact `runs/<run>/questions/<asked>`: answers of the final weights of a finished run.

    `asked`: last part of the name of `pools/<pool>/questions/<asked>`. Raises InputError as `score_outside` does, and when an answer
    has more tokens than a row of the model.
    """
    job, result = _finished(root, run)
    inputs, encoded = open_inputs(root, job), root.open(PoolFolder(job.pool_id).questions(asked))
    require_made_from(encoded.manifest, inputs.tokenizer.name, inputs.tokenizer.manifest.content)
    require_fit(encoded, job.experiment.training.sequence_length)
    found = _checkpoint(root, run, inputs, RunFacts.of(result).steps)

    def make(work: Work) -> None:
        compute, world = _load(job, inputs, found)
        length = job.experiment.training.sequence_length
        answers = answer(compute.losses, open_questions(encoded), length, _batch_tokens(world), world)
        write_answers(work, answers)
        work.facts.update({name: value for name, value in summarize_answers(answers).items() if value is not None})
        work.facts.update(steps=found.step, tokens=found.rows * length, code=code_version())

    made_from = inputs.by_role | {
        "checkpoint": found.artifact.manifest,
        "questions": encoded.manifest,
        "result": result,
    }
    return root.build(RunFolder(run).questions(asked), make, spec=job.experiment.identity(), inputs=made_from)


def _finished(root: Root, run: str) -> tuple[Job, Manifest]:
    job = find_job(root, run)
    result = root.find(job.result)
    if result is None:
        raise InputError(f"The run {run} has not finished: train it to its end, then score it.")
    return job, result


def _checkpoint(root: Root, run: str, inputs: Inputs, step: int | None) -> checkpoint.Checkpoint:
    found = checkpoint.find(root, run, inputs.by_role, step)
    if found is None:
        raise InputError(f"The run {run} has no checkpoint: train it first.")
    return found


def _build(
    root: Root,
    name: str,
    job: Job,
    inputs: Inputs,
    found: checkpoint.Checkpoint,
    evaluation: Artifact,
    beside: Mapping[str, Manifest] | None = None,
) -> Artifact:
    """Score the documents of `evaluation` and keep that as the artifact `name`, made from `beside` too."""
    training = job.experiment.training

    def make(work: Work) -> None:
        compute, world = _load(job, inputs, found)
        holdout = EncodedHoldout.of(evaluation, inputs.strata if evaluation is inputs.evaluation else None)
        nats = evaluate(compute.losses, holdout, training.sequence_length, _batch_tokens(world), world)
        scores = scores_table(nats, holdout.documents)
        write_scored(work, job, scores, steps=found.step, tokens=found.rows * training.sequence_length)

    scored = inputs.by_role | {"checkpoint": found.artifact.manifest} | (beside or {})
    return root.build(name, make, spec=job.experiment.identity(), inputs=scored)


def _load(job: Job, inputs: Inputs, found: checkpoint.Checkpoint) -> tuple[Compute, World]:
    """The model of a checkpoint on this process's device."""
    training = job.experiment.training
    world = join(training.device)
    shape = ModelShape.of(training, inputs.packed.facts["vocab_size"])
    model = GPT(shape, embedding_dtype(training.precision))
    model.load_state_dict(found.model())
    compute = build_compute(model.to(world.device), training.precision, kernels=training.compile)
    compute.load_state_dict(found.shards()[0]["compute"])
    return compute, world


def _batch_tokens(world: World) -> int:
    return CPU_MICRO_TOKENS if world.device.type == "cpu" else GPU_BATCH_TOKENS
