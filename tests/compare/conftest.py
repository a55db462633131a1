"""A stack of its own for comparisons, which take long: beside that of `tests/stack`."""

from collections import Counter

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

from tests.stack.conftest import client, parameters, said, stack, taken

__all__ = ["below", "client", "parameters", "said", "stack", "taken"]


def below(client, run):
    """How many children of each flow a run has."""
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    return Counter(client.read_flow(child.flow_id).name for child in client.read_flow_runs(flow_run_filter=wanted))
