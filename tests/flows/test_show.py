"""What a person reads of a step that runs."""

import logging

import pytest

from tasks import show


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((0, 3250, 2.0, {}), "0 of 3,250"),
        (
            (1280, 3250, 20.0, {"bytes_read": 182_100_000}),
            "1,280 of 3,250, 64 a second, 31 s left, bytes read 182,100,000",
        ),
        ((2920, 3250, 10.0, {}, 2280), "2,920 of 3,250, 64 a second, 5 s left"),  # what was there before is no speed
        ((3250, 3250, 50.0, {"retries": 0}), "3,250 of 3,250, 65 a second, retries 0"),
        ((5, 20_000, 10.0, {"loss": 3.14159}), "5 of 20,000, 0.5 a second, 11 h 6 min left, loss 3.142"),
        ((10**9, 10**10, 10.0, {}), "1,000,000,000 of 10,000,000,000, 100,000,000 a second, 2 min left"),
    ],
)
def test_a_stage_says_how_far_how_fast_and_how_long(given, wanted):
    assert show.described(*given) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.4, "0 s"), (89.4, "89 s"), (300, "5 min"), (5340, "89 min"), (12_000, "3 h 20 min")]
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
    assert last.endswith("rows 80, in 0 s")


def test_a_stages_clock_begins_with_the_last_word_of_the_one_before(caplog):
    times = iter([0.0, 10.0, 20.0, 40.0, 60.0])
    with caplog.at_level(logging.INFO, "fabrating"):
        shown = show._Shown("Text", clock=lambda: next(times))
        for stage, done in (("index", 1), ("index", 101), ("text", 11), ("text", 101)):
            shown(stage, done, 101, {})
        shown.close()
    assert [record.message for record in caplog.records][-2:] == [
        "Text: index, 101 of 101, 5 a second, in 20 s",
        "Text: text, 101 of 101, 2.25 a second, in 40 s",
    ]
