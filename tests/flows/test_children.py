"""What Prefect calls by name must have the names that it uses."""

import inspect
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows import children
from flows.children import MOST_PARAMETERS, preparations, run_children, scoring
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


def test_children_are_asked_for_one_after_the_other_until_they_are_left(monkeypatch):
    """At once they would lock one another out of SQLite. Prefect's part is played here: a real server only makes it slow."""
    asked, together = [], []
    busy = threading.Lock()

    def ask(*_, flow_run_name, **__):
        together.append(not busy.acquire(blocking=False))
        time.sleep(0.01)
        asked.append(flow_run_name)
        busy.release()
        if len(asked) == 5:
            left.set()

    left = threading.Event()
    monkeypatch.setattr(children, "run_deployment", ask)
    found = [scoring(f"run-{number}", (), False, "/root") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        started = {child.name: pool.submit(children._ask, child, left) for child in found}
    assert not any(together)
    assert len(asked) == 5
    errors = {name: str(each.exception()) for name, each in started.items() if each.exception()}
    assert errors == {name: f"Nobody waits for {name} any more" for name in started.keys() - asked}


def test_who_is_cancelled_waits_for_no_child(monkeypatch):
    """Threads that wait would keep its process alive until it is killed; a timer's signal stands for the worker's."""
    ended = []

    def wait(child, pages, left):
        ended.append(left.wait(30))

    def cancel(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(children, "run_child", wait)
    previous = signal.signal(signal.SIGALRM, cancel)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            run_children([scoring(name, (), False, "/root") for name in "abc"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert ended == [True] * 3
