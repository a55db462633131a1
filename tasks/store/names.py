"""Names of artifacts: readable, with a fingerprint of all that determines the content."""

from collections.abc import Iterable

from tasks.spec import Arm, Experiment, Pool
from tasks.store.artifact import fingerprint
from tasks.store.blobs import Blob


def pool_id(pool: Pool, blobs: Iterable[Blob]) -> str:
    """Name of a pool: its parameters and the blobs it is read from, ETags included."""
    return f"{pool.name}-{fingerprint(pool.identity(), [[b.name, b.size, b.etag] for b in blobs])}"


def arm_id(arm: Arm, pool: str) -> str:
    """Name of an arm of the pool with id `pool`."""
    return f"{arm.name}-{fingerprint(arm.identity(), pool)}"


def run_id(experiment: Experiment, arm: str) -> str:
    """Name of the training run of an experiment on the arm with id `arm`."""
    training = experiment.training
    return f"{experiment.arm.name}-d{training.depth}-s{experiment.seed}-{fingerprint(experiment.identity(), arm)}"
