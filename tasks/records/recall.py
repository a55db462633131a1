"""From an arm's name back to the parameters it was made with, as its manifest and its pool's record them."""

from collections.abc import Sequence

from pydantic import ValidationError

from tasks.errors import DamagedError, InputError
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.spec import Arm, Draw, Experiment, Pool, Training
from tasks.store.artifact import Manifest
from tasks.store.root import Root


def require_arm(root: Root, arm_id: str) -> Manifest:
    """The manifest of a prepared arm's text. Raises InputError when there is no such arm."""
    text = root.find(ArmFolder(arm_id).text)
    if text is None:
        known = ", ".join(ArmFolder.all(root))
        instead = f", or take one of {known}" if known else ""
        raise InputError(f"There is no arm {arm_id!r} under {root.url}: prepare it first{instead}.")
    return text


def recall(root: Root, arm_id: str, training: Training, seed: int, held: Sequence[Draw] = ()) -> tuple[Experiment, str]:
    """The experiment of training on a prepared arm, and the name of the arm's pool.

    Raises InputError when there is no such arm, DamagedError when its manifest does not say what it was made from.
    """
    text = require_arm(root, arm_id)
    try:
        pool_id = text.inputs["pool"]
        arm = Arm.model_validate(text.spec)
        pool = Pool.model_validate(root.manifest(PoolFolder(pool_id).index).spec)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DamagedError(
            f"The manifest of arms/{arm_id}/text does not say its arm and pool ({error!r}): prepare the arm again."
        ) from error
    return Experiment(pool=pool, arm=arm, training=training, seed=seed, held=tuple(held)), pool_id
