"""What a training reads, and whether it belongs together."""

from dataclasses import dataclass

from tasks.errors import InputError
from tasks.records.job import Job
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.store.artifact import Artifact, Manifest, require_made_from
from tasks.store.root import Root


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a run reads. Of the arm's text the manifest alone: it may be large and elsewhere."""

    packed: Artifact
    tokenizer: Artifact
    evaluation: Artifact
    strata: Artifact
    text: Manifest
    by_role: dict[str, Manifest | str]
    """What a result and a checkpoint of this run are made from."""


def open_inputs(root: Root, job: Job) -> Inputs:
    """Open the packed arm, the pool's tokenizer, the encoded holdout and its strata by the arm's score, and check that they belong together.

    Contents are compared as the manifests record them; no file is read. Raises InputError when one is missing, was made with
    another tokenizer than the pool's or from another text, or when another holdout than the evaluation's was kept out of
    the arm.
    """
    training = job.experiment.training
    packed = root.open(ArmFolder(job.arm_id).packed(training.sequence_length, training.packing))
    tokenizer = root.open(PoolFolder(job.pool_id).tokenizer)
    evaluation = root.open(PoolFolder(job.pool_id).evaluation)
    name = ArmFolder(job.arm_id).text
    text = root.find(name)
    if text is None:
        raise InputError(f"There is no {name} under {root.url}, which says what was held out: prepare the arm.")
    require_made_from(packed.manifest, tokenizer.name, tokenizer.manifest.content)
    require_made_from(packed.manifest, text.name, text.content)
    require_made_from(evaluation.manifest, tokenizer.name, tokenizer.manifest.content)
    holdout = PoolFolder(job.pool_id).holdout
    held = (evaluation.manifest.made_from or {}).get(holdout)
    require_made_from(text, holdout, held)
    arm = job.experiment.arm.of(job.experiment.pool)
    strata = root.open(PoolFolder(job.pool_id).strata(arm.score or {}))
    require_made_from(strata.manifest, holdout, held)
    by_role = {
        "packed": packed.manifest,
        "tokenizer": tokenizer.manifest,
        "evaluation": evaluation.manifest,
        "strata": strata.manifest,
        "arm": job.arm_id,
        "pool": job.pool_id,
    }
    return Inputs(packed, tokenizer, evaluation, strata, text, by_role)
