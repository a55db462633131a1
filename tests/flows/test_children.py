"""What Prefect calls by name must have the names that it uses."""

import inspect

import pytest

from flows.children import MOST_PARAMETERS, preparations
from flows.compare import compare
from flows.experiment import experiment
from tasks.spec import Arm, Pool, Training


@pytest.mark.parametrize("flow", [compare, experiment], ids=lambda flow: flow.name)
def test_cancellation_hooks_take_what_a_worker_hands_over(flow):
    assert flow.on_cancellation_hooks
    for hook in flow.on_cancellation_hooks:
        inspect.signature(hook).bind(flow=flow, flow_run=None, state=None)


def test_one_child_prepares_all_arms_and_another_set_of_arms_is_another_child():
    arms = {f"rand-{seed}": Arm(name="rand", select="random", seed=seed) for seed in range(1, 10)}
    (child,) = preparations(arms, Pool(), Training(), "/root")
    assert [child.parameters["arm"], *child.parameters["more"]] == list(arms.values())
    (alone,) = preparations({"rand-1": arms["rand-1"]}, Pool(), Training(), "/root")
    (fewer,) = preparations({id: arms[id] for id in list(arms)[:8]}, Pool(), Training(), "/root")
    assert alone.name == "rand-1" and "more" not in alone.parameters
    assert len({child.name, alone.name, fewer.name}) == 3


def test_arms_that_a_server_would_not_take_at_once_are_several_children():
    arms = {f"listed-{seed}": Arm(name="listed", where="x == 1 or " * 190 + "x == 2", seed=seed) for seed in range(128)}
    found = preparations(arms, Pool(), Training(), "/root")
    assert [arm for child in found for arm in (child.parameters["arm"], *child.parameters["more"])] == list(
        arms.values()
    )
    size = len(arms["listed-1"].model_dump_json())
    assert 1 < len(found) <= 128 * size / (MOST_PARAMETERS - size) + 1
