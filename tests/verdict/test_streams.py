"""The sequential benchmark: it finds what it is made to find, and its short form keeps the bound."""

import pytest

from benchmarks.verdict import sequential
from benchmarks.verdict.sequential import EQUAL, GRID, PAIRED, SHORT, TO_8, Stream, out_of_bounds, outcome, run


@pytest.mark.parametrize("stream", SHORT, ids=str)
def test_the_short_form_keeps_the_bound(stream):
    assert not out_of_bounds(outcome(run(stream, 1_000), 1_000).wrong, 1_000)


def test_looks_without_levels_of_their_own_are_out_of_bounds(monkeypatch):
    monkeypatch.setattr(sequential, "look_alpha", lambda rule, looks, alpha, paired: alpha)
    found = outcome(run(Stream(EQUAL, TO_8), 1_000), 1_000)
    assert found.wrong > 8 and out_of_bounds(found.wrong, 1_000)


def test_a_large_difference_stops_early_and_the_one_of_the_fixed_design_is_found_nearly_as_often():
    large = outcome(run(Stream(PAIRED, TO_8, effect=4), 500), 500)
    assert large.decisions["worse"] == 100 and large.replicates < 5
    planned = outcome(run(Stream(PAIRED, TO_8, effect=1), 1_000), 1_000)
    assert planned.fixed == pytest.approx(80, abs=4)
    assert 68 < planned.decisions["worse"] < planned.fixed and planned.replicates < 7.5


def test_what_is_wrong_depends_on_the_pair():
    apart = Stream(EQUAL, TO_8, margin=1, at_margin=True)
    assert apart.wrong((0, 1)) == {"better", "equivalent"} and apart.wrong((1, 2)) == {"better", "worse"}
    assert Stream(EQUAL, TO_8, margin=2, effect=1).wrong((0, 1)) == {"better"}
    assert Stream(EQUAL, TO_8, margin=2).wrong((0, 1)) == {"better", "worse"}


def test_the_grid_holds_each_stream_once():
    streams = [stream for group in GRID.values() for stream in group]
    assert len(set(streams)) == len(streams)
