"""What a person reads of a step that runs."""

import logging

import pytest

from tasks import steps as show


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((0, 3250, 0.0, {}), "0 of 3,250"),
        (
            (1280, 3250, 64, {"bytes_read": 182_100_000}),
            "1,280 of 3,250, 64 a second, 31 s left, bytes read 182,100,000",
        ),
        ((3250, 3250, 999.7, {"retries": 0}), "3,250 of 3,250, 1,000 a second, retries 0"),
        ((5, 20_000, 0.5, {"loss": 3.14159}), "5 of 20,000, 2 s each, 11 h 6 min left, loss 3.142"),
        (
            (5, 9, 0.001, {"tokens_per_second": 476858.25}),
            "5 of 9, 17 min each, 67 min left, tokens per second 476,858",
        ),
    ],
)
def test_a_stage_says_how_far_how_fast_and_how_long(given, wanted):
    assert show.described(*given) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.4, "0.4 s"), (89.4, "89 s"), (300, "5 min"), (5340, "89 min"), (12_000, "3 h 20 min")]
)
def test_times_are_said_as_people_say_them(seconds, wanted):
    assert show.lasting(seconds) == wanted


def test_outside_of_a_run_a_stage_is_logged(caplog):
    with caplog.at_level(logging.INFO, "fabrating"), show.progress("Index") as progress:
        progress("index", 0, 2, {})
        progress("index", 2, 2, {"rows": 80})
    first, last = (record.message for record in caplog.records)
    assert first == "Index: index, 2 to do"
    assert last.startswith("Index: index, 2 of 2, ")
    assert "rows 80, in 0" in last


def test_a_rate_is_that_of_the_last_minute_and_begins_anew_with_the_next_arm():
    stage = show._Stage(None)
    stage.see(100.0, 40, 1000, {})  # compiled, or found there
    assert stage.text() == "40 of 1,000"
    stage.see(110.0, 60, 1000, {})
    assert stage.text() == "60 of 1,000, 2 a second, 8 min left"
    for second in range(10):
        stage.see(200.0 + 5 * second, 100 + 50 * second, 1000, {})
    assert stage.text() == "550 of 1,000, 10 a second, 45 s left"
    stage.see(300.0, 0, 700, {})
    assert stage.text() == "0 of 700"
