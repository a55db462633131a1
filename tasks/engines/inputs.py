"""What a training reads, and whether it belongs together."""

from dataclasses import dataclass

from tasks.errors import InputError
from tasks.records.job import Job
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.store.artifact import Artifact, Manifest
from tasks.store.root import Root


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a run reads. Of the arm's text the manifest alone: it may be large and elsewhere."""

    packed: Artifact
    tokenizer: Artifact
    evaluation: Artifact
    text: Manifest
    fingerprints: dict[str, str]
    """What a result and a checkpoint of this run depend on."""


def open_inputs(root: Root, job: Job) -> Inputs:
    """Open the packed arm, the pool's tokenizer and the encoded holdout, and check that they belong together.

    Raises InputError when one is missing, was made with another tokenizer than the pool's or from another text, or when
    another holdout than the evaluation's was kept out of the arm.
    """
    training = job.experiment.training
    packed = root.open(ArmFolder(job.arm_id).packed(training.sequence_length, training.packing))
    tokenizer = root.open(PoolFolder(job.pool_id).tokenizer)
    evaluation = root.open(PoolFolder(job.pool_id).evaluation)
    name = ArmFolder(job.arm_id).text
    text = root.find(name)
    if text is None:
        raise InputError(f"There is no {name} under {root.url}, which says what was held out: prepare the arm.")
    require_made_from(packed, "tokenizer", tokenizer.fingerprint)
    require_made_from(packed, "text", text.fingerprint)
    require_made_from(evaluation, "tokenizer", tokenizer.fingerprint)
    require_made_from(evaluation, "holdout", text.inputs.get("holdout"))
    fingerprints = {
        "packed": packed.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "evaluation": evaluation.fingerprint,
        "arm": job.arm_id,
        "pool": job.pool_id,
    }
    return Inputs(packed, tokenizer, evaluation, text, fingerprints)


def require_made_from(artifact: Artifact, kind: str, wanted: str | None) -> None:
    """Raises InputError when an artifact was not made from the `kind` of the fingerprint `wanted`."""
    found = artifact.manifest.inputs.get(kind)
    if found is None or found != wanted:
        raise InputError(
            f"{artifact.name} was made from another {kind} ({found}) than the arm and its pool have now ({wanted}): delete "
            f"{artifact.path} and prepare it again."
        )
