"""A verdict on runs that were deleted and trained again."""

import json

from tasks.reports.report import write_verdict
from tasks.verdict.judge import judge


def test_what_is_written_is_what_was_just_judged(bench) -> None:
    arms = bench.arms(seeds=3, top=-0.05, random=0.0)
    write_verdict(bench.root, judge(bench.root, "verdict", arms))
    for run in arms["top"]:
        bench.root.remove(f"runs/{run}/result")
    for seed in (1, 2, 3):
        bench.run("top", seed, offset=0.05)
    judged = judge(bench.root, "verdict", arms)
    made = write_verdict(bench.root, judged)
    kept = json.loads((made.path / "verdict.json").read_text())
    assert kept["comparisons"][0]["sentence"] == judged.comparisons[0].sentence
