"""What Prefect calls by name must have the names that it uses."""

import inspect

import pytest

from flows.compare import compare
from flows.experiment import experiment


@pytest.mark.parametrize("flow", [compare, experiment], ids=lambda flow: flow.name)
def test_cancellation_hooks_take_what_a_worker_hands_over(flow):
    assert flow.on_cancellation_hooks
    for hook in flow.on_cancellation_hooks:
        inspect.signature(hook).bind(flow=flow, flow_run=None, state=None)
