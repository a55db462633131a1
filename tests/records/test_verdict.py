import json

import pytest

from tasks.errors import DamagedError
from tasks.records.verdict import (
    Comparison,
    HoldoutSize,
    Matched,
    SeedPairing,
    StandardErrors,
    TokensSaved,
    Verdict,
)

UNKNOWN = {"estimate": None, "low": None, "high": None}


def comparison(low, high, covers_seeds=True):
    return Comparison(
        a="top",
        b="random",
        difference=-0.1,
        low=low,
        high=high,
        p=0.01,
        seeds=2,
        covers_seeds=covers_seeds,
        on="",
        clusters=30,
        errors=StandardErrors(documents=0.01, seeds=None),
        level=0.95,
        degrees_of_freedom=2,
        pairing=SeedPairing(asked="auto", paired=False, shared=2, correlation=None, low=None, high=None, other=None),
        warnings=("two seeds",),
        detectable=(),
        seeds_needed=None,
        tokens_saved=TokensSaved(**UNKNOWN),
        strata=(),
        outside=(),
        tasks=(),
    )


def verdict(pair):
    return Verdict(
        name="v",
        created="2026-01-31T12:34:56+00:00",
        code="0.1.0",
        level=0.95,
        level_of_a_pair=0.95,
        target="all",
        pairing="auto",
        outside=(),
        core=False,
        pool="pool-0123456789",
        tokens=1_000,
        holdout=HoldoutSize(documents=600, bytes=9, clusters=30, clusters_are="blocks of neighbouring rows"),
        matched=Matched(allowed={}),
        arms=(),
        comparisons=(pair,),
    )


@pytest.mark.parametrize(
    ("pair", "conclusion", "better"),
    [
        (comparison(-0.2, -0.05), "better", "top"),
        (comparison(-0.2, 0.05), "not distinguishable", None),
        (comparison(None, None), "not distinguishable", None),
        (comparison(-0.2, -0.05, covers_seeds=False), "one seed", None),
    ],
)
def test_the_interval_decides_what_is_concluded(pair, conclusion, better):
    assert (pair.conclusion, pair.better) == (conclusion, better)


def test_a_verdict_is_read_as_it_was_written(tmp_path):
    written = verdict(comparison(-0.2, -0.05))
    written.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == written
    raw = json.loads((tmp_path / "verdict.json").read_text())
    assert (raw["format"], raw["comparisons"][0]["better"]) == (2, "top")


def test_a_verdict_by_other_statistics_is_not_read(tmp_path):
    path = tmp_path / "verdict.json"
    raw = json.loads(verdict(comparison(-0.2, -0.05)).to_json())
    path.write_text(json.dumps(raw | {"format": 1}))
    with pytest.raises(DamagedError, match=r"verdict\.json cannot be read \(format: .*judge the runs again"):
        Verdict.read(path)
