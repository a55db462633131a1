from flows.design import design


def test_the_flow_proposes_a_comparison_and_shows_what_it_costs(tmp_path):
    found = design.fn(effect=0.02, dollars=100.0, root=str(tmp_path))
    assert found["proposal"].startswith("Train 2 arms x ") and found["designs"][0]["cost"]["dollars"] < 100
