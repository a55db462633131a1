"""The coverage benchmark: what it simulates is what it says, and its short form keeps the bounds."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.verdict.coverage import GRID, SHORT, Case, out_of_bounds, simulate
from tasks.verdict.paired import bits_per_byte


def test_simulated_arms_have_the_spreads_and_the_correlation_of_their_case():
    case = Case((8, 8), (1, 0.2), 0.5, correlation=0.6)
    (a, b), sizes = simulate(case, 3.0, 2_000, np.random.default_rng(1))
    ours, theirs = bits_per_byte(a, sizes), bits_per_byte(b, sizes)
    assert ours.var(0, ddof=1).mean() == pytest.approx(1, abs=0.05)
    assert theirs.var(0, ddof=1).mean() == pytest.approx(0.04, abs=0.002)
    assert np.mean((ours - ours.mean(0)) * (theirs - theirs.mean(0))) * 8 / 7 == pytest.approx(0.6 * 0.2, abs=0.01)
    assert (ours - theirs).mean() == pytest.approx(3, abs=0.05)
    unexplained = (1 + 0.04 - 2 * 0.12) / 8
    assert (ours - theirs).mean(0).var() == pytest.approx(0.25 + unexplained, abs=0.03)


def test_the_grid_holds_few_clusters_long_tails_unequal_numbers_and_unlike_spreads():
    cases = [case for group in GRID.values() for case in group]
    assert {Case((2, 2), (1, 0.2)), Case((2, 6), (3, 1)), Case((3,) * 5, (1, 1, 0.2, 0.2, 0.2)), *SHORT} <= set(cases)
    assert len(set(cases)) == len(cases)


def test_a_case_that_misses_too_often_or_too_seldom_is_out_of_bounds():
    case = Case((3, 3), (1, 1))
    assert [out_of_bounds(case, alarms) for alarms in (2.0, 3.0, 6.5, 6.6)] == [True, False, False, True]
    assert not out_of_bounds(Case((2, 2), (1, 1)), 1.0)


def test_the_short_form_keeps_the_bounds():
    command = [sys.executable, "-m", "benchmarks.verdict", "coverage", "--short", "--simulations", "200"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "seed 2026, 200 simulations a case" in found.stdout and "0 out of bounds" in found.stdout
