import pytest

from flows.design import design
from flows.estimate import estimate
from tasks.errors import InputError


def test_the_flow_proposes_a_comparison_and_shows_what_it_costs(tmp_path):
    found = design.fn(effect=0.02, dollars=100.0, root=str(tmp_path))
    assert found["proposal"].startswith("Train 2 arms x ") and found["designs"][0]["cost"]["dollars"] < 100


@pytest.mark.parametrize("flow", [design, estimate], ids=lambda flow: flow.name)
def test_a_flow_that_looks_up_what_is_known_makes_no_root(flow, tmp_path, monkeypatch):
    monkeypatch.setenv("FABRATING_ROOT", str(tmp_path / "default"))
    with pytest.raises(InputError, match=f"There is no root {tmp_path}/typo: check the name of the folder"):
        flow.fn(root=str(tmp_path / "typo"))
    assert flow.fn() and list(tmp_path.iterdir()) == []
