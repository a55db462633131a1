from tasks.progress import Evaluations


def test_an_evaluation_is_said_once_with_the_time_left():
    now = [0.0]
    found = Evaluations(clock=lambda: now[0])
    assert found.news(100, 1_000, {"bpb": 1.5}) is None, "an earlier attempt's"
    now[0] = 60.0
    assert (
        found.news(200, 1_000, {"bpb": 1.4, "loss": 3.0})
        == "step 200 of 1,000, loss 3.0000, 1.4000 bits per byte, 8 min left"
    )
    assert found.news(250, 1_000, {"bpb": 1.4, "loss": 3.0}) is None
    assert found.news(1_000, 1_000, {"bpb": 1.3}) == "step 1,000 of 1,000, 1.3000 bits per byte"
