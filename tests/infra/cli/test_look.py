import json

import pytest
from typer.testing import CliRunner

from infra.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_judge_writes_a_verdict_and_report_finds_it(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    given = [f"{label}={','.join(runs)}" for label, runs in arms.items()]
    found = run("judge", *given, "--name", "demo", "--root", bench.root.folder, "--json")
    assert found.exit_code == 0, found.output
    verdict = json.loads(found.stdout)
    assert verdict["comparisons"][0]["better"] == "top16"
    name = verdict["artifact"].removeprefix("verdicts/")
    report = json.loads(run("report", name, "--root", bench.root.folder, "--json").stdout)["report"]
    assert report == (bench.root.path(verdict["artifact"]) / "report.html").as_uri()
    shown = run("judge", *given, "--name", "demo", "--root", bench.root.folder)
    assert "top16 is better" in " ".join(shown.stdout.split())


def test_estimate_says_cost_source_and_what_seeds_show(tmp_path):
    arguments = ("estimate", 10**9, "--arms", 2, "--seeds", 3, "--engine", "nanochat", "--root", tmp_path)
    found = run(*arguments, "--json")
    cost = json.loads(found.stdout)
    assert cost["runs"] == 6 and cost["dollars"] == pytest.approx(cost["gpu_hours"] * 3.0)
    assert "not known yet" in cost["seeds"]
    assert "GPU hours in all" in run(*arguments).stdout


def test_design_proposes_a_comparison_and_lists_what_else_there_is(tmp_path):
    arguments = ("design", "--effect", 0.02, "--dollars", 100, "--root", tmp_path)
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["proposal"].startswith("Train 2 arms x ") and len(found["designs"]) == 3
    assert "20,054,016" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("design", "--effect", "0", "--dollars", "1"), "The effect is 0: give a number above 0."),
        (("judge", "a=x", "b=y", "--name", "a/b"), "The verdict's name is 'a/b': use lower-case letters"),
        (("judge", "top16"), "'top16' names no runs of an arm"),
        (("judge", "a=x", "a=y"), "The arm a is given twice"),
        (("judge", "a=x", "b=y"), "no complete artifact runs/x/result"),
        (("report", "nobody"), "There is no run 'nobody'"),
        (("estimate", "0"), "tokens = 0 cannot be used"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(tmp_path, arguments, message):
    found = run(*arguments, "--root", tmp_path)
    assert found.exit_code == 1
    assert message in found.stderr and found.stderr.count("\n") == 1
