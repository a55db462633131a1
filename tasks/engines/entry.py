"""The engines that train, behind one call: FabRating's trainer and upstream nanochat."""

from tasks.progress import Progress, Stop, never, silent
from tasks.spec import Experiment
from tasks.store.artifact import Artifact
from tasks.store.root import Root


def train(
    root: Root, experiment: Experiment, pool_id: str, arm_id: str, progress: Progress = silent, stop: Stop = never
) -> Artifact:
    """Train a packed arm by the engine that the experiment names, and score it: the artifact `runs/<run>/result`.

    Raises what that engine's `train` raises. Only the chosen one is imported.
    """
    if experiment.training.engine == "nanochat":
        from tasks.engines.nanochat import engine
    else:
        from tasks.engines.builtin import run as engine
    return engine.train(root, experiment, pool_id, arm_id, progress=progress, stop=stop)
