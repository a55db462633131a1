"""What a run's seed draws anew, and what is the same in all runs because it is held."""

from typing import Any

import pytest
import torch

from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.setup import build_learner, shape_run
from tasks.engines.inputs import open_inputs
from tasks.records.job import Job
from tasks.spec import DRAWS, Draw
from tasks.store.root import Root
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment


def drawn(root: Root, seed: int, held: tuple[Draw, ...]) -> dict[Draw, Any]:
    """Initial weights, order and set of the rows of a run on a third of a shuffled arm."""
    experiment = make_experiment(seed, tokens=20 * LENGTH, compile=False)
    shuffled = experiment.arm.model_copy(update={"order": "shuffled"})
    experiment = experiment.model_copy(update={"arm": shuffled, "held": held})
    job, world = Job.of(root, experiment, POOL, ARM), World(0, 1, torch.device("cpu"))
    shape = shape_run(experiment, root.open(f"arms/{ARM}/packed/{LENGTH}-split"), world)
    learner, step = build_learner(root, job, open_inputs(root, job).by_role, shape, world)
    assert step == 0
    rows = shape.rows.chosen.tolist()
    weights = torch.cat([tensor.flatten() for tensor in learner.model.state_dict().values()])
    return {"init": weights.tolist(), "order": rows, "sample": sorted(rows)}


@pytest.mark.parametrize("held", [(), ("init",), ("sample",), ("order", "sample"), DRAWS])
def test_a_seed_redraws_what_is_not_held(root, held):
    first, second = (drawn(root, seed, held) for seed in (1, 2))
    assert (first["init"] == second["init"]) == ("init" in held)
    assert (first["sample"] == second["sample"]) == ("sample" in held)
    assert (first["order"] == second["order"]) == ({"order", "sample"} <= set(held))
