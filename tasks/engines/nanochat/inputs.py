"""What a nanochat run reads, and whether it belongs together."""

from dataclasses import dataclass

from tasks.errors import InputError
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.store.artifact import Artifact
from tasks.store.root import Root


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a run reads."""

    text: Artifact
    packed: Artifact
    tokenizer: Artifact
    evaluation: Artifact

    def fingerprints(self, pool_id: str, arm_id: str) -> dict[str, str]:
        """What the result depends on: the same as for the built-in trainer."""
        made_from = {name: getattr(self, name).fingerprint for name in ("packed", "tokenizer", "evaluation")}
        return {**made_from, "arm": arm_id, "pool": pool_id}


def open_inputs(root: Root, pool_id: str, arm_id: str, sequence_length: int) -> Inputs:
    """Open what a run reads and check that it belongs together.

    Raises InputError when something is missing, was made with another tokenizer than the pool's or from another text, or
    when another holdout than that of the evaluation was kept out of the arm.
    """
    inputs = Inputs(
        root.open(ArmFolder(arm_id).text),
        root.open(ArmFolder(arm_id).packed(sequence_length, "crop")),
        root.open(PoolFolder(pool_id).tokenizer),
        root.open(PoolFolder(pool_id).evaluation),
    )
    tokenizer = inputs.tokenizer.fingerprint
    kept_out = inputs.text.manifest.inputs.get("holdout")
    for artifact, wanted in (
        (inputs.packed, {"tokenizer": tokenizer, "text": inputs.text.fingerprint}),
        (inputs.evaluation, {"tokenizer": tokenizer, "holdout": kept_out}),
    ):
        for name, fingerprint in wanted.items():
            found = artifact.manifest.inputs.get(name)
            if found is None or found != fingerprint:
                raise InputError(
                    f"{artifact.name} was made from the {name} {found}, but the arm {arm_id} and its pool have {fingerprint}: "
                    f"delete {artifact.path} and prepare it again."
                )
    return inputs
