"""Children of a flow on the running stack: many at once, one that is deleted, and those of an earlier attempt."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect import flow, runtime
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import Completed, Failed

from flows import children
from flows.children import ChildFailed, run_children, scoring
from tests.stack.conftest import runs_below, wait

pytestmark = pytest.mark.stack
RUNS = [f"run-{number}" for number in range(12)]


@pytest.fixture
def paused(client):
    """The gpu pool takes no run meanwhile."""
    client.update_work_pool("gpu", WorkPoolUpdate(is_paused=True))
    yield
    client.update_work_pool("gpu", WorkPoolUpdate(is_paused=False))


def test_a_parent_waits_for_all_children_and_its_next_attempt_starts_them_again(client, paused, monkeypatch):
    monkeypatch.setattr(children, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(children, "MOST_READ", 5)
    wanted, asked = [scoring(run, (), False, "/nowhere") for run in RUNS], []

    def end(parent, deleted, failed):
        """Once all wait for a worker, end them, as workers would."""
        waiting = lambda: [one for one in runs_below(client, parent) if one.state.is_scheduled()]  # noqa: E731
        found = {one.name: one for one in wait(lambda: len(waiting()) == len(RUNS) and waiting(), 60)}
        asked.append({name: one.id for name, one in found.items()})
        for name, one in found.items():
            if name == deleted:
                client.delete_flow_run(one.id)
            else:
                client.set_flow_run_state(one.id, Failed() if name == failed else Completed(), force=True)

    @flow(name="parent")
    def parent():
        me, pages = client.read_flow_run(runtime.flow_run.id), {}
        with ThreadPoolExecutor(1) as aside:
            first = aside.submit(end, me, "run-3", "run-5")
            with pytest.raises(ChildFailed, match="run-3 was deleted"):
                run_children(wanted, pages)
            first.result()
            assert {name: pages[name].rsplit("/", 1)[1] for name in RUNS} == {k: str(v) for k, v in asked[0].items()}
            second = aside.submit(end, me, None, None)
            run_children(wanted, pages)
            second.result()

    parent()
    before, after = asked
    assert {name for name in RUNS if before[name] != after[name]} == {"run-3"}
