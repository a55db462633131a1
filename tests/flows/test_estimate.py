from flows.estimate import estimate
from tasks.spec import Training


def test_the_flow_says_cost_and_power(tmp_path):
    found = estimate.fn(tokens=10**9, train=Training(engine="nanochat"), arms=2, seeds=2, root=str(tmp_path))
    assert found["runs"] == 4 and found["label"] == "2 arms x 2 seeds"
    assert found["dollars"] > 0 and "not known yet" in found["seeds"]
    by_ratio = estimate.fn(tokens=10**9, train=Training(tokens_per_parameter=10.5), root=str(tmp_path))
    assert by_ratio["tokens"] == 4_569_182_520
