import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from tests.corpus.corpora import rated_texts
from tests.planted import TRAINING


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


def test_judge_checks_savings_by_shorter_runs(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    less = TRAINING.model_copy(update={"tokens": 925_000})
    shorter = [bench.run("top16", seed, -0.03, training=less, facts={"tokens": 925_000}) for seed in (1, 2)]
    given = [*(f"{label}={','.join(runs)}" for label, runs in arms.items()), "--shorter", ",".join(shorter)]
    found = run("judge", *given, "--root", bench.root.folder, "--json")
    assert found.exit_code == 0, found.output
    (pair,) = json.loads(found.stdout)["comparisons"]
    assert pair["tokens_saved"]["checked"]["runs"] == shorter
    assert "Runs of top16 on 7.5 % fewer tokens" in pair["sentence"]


def test_inspect_looks_at_each_of_several_sources(tmp_path):
    for name, count in (("top16", 20), ("rand16", 30)):
        (tmp_path / name).mkdir()
        pq.write_table(rated_texts(count), tmp_path / name / "a.parquet")
    sources = {name: str(tmp_path / name) for name in ("top16", "rand16")}
    given = ("inspect", "--set", f"sources={json.dumps(sources)}")
    found = json.loads(run(*given, "--json").stdout)
    assert {name: each["documents"] for name, each in found.items()} == {"top16": 20, "rand16": 30}
    assert all(name in run(*given).stdout for name in sources)
    assert json.loads(run("inspect", tmp_path / "top16", "--json").stdout) == found["top16"]


def test_estimate_says_cost_source_and_what_seeds_show(tmp_path):
    arguments = ("estimate", 10**9, "--arms", 2, "--seeds", 3, "--engine", "nanochat", "--root", tmp_path)
    found = run(*arguments, "--json")
    cost = json.loads(found.stdout)
    assert cost["runs"] == 6 and cost["dollars"] == pytest.approx(cost["gpu_hours"] * 3.0)
    assert "not known yet" in cost["seeds"]
    assert "GPU time in all" in run(*arguments).stdout
    assert "0: the tokens do not fill one batch" in run("estimate", 400_000, "--root", tmp_path).stdout


def test_design_proposes_a_comparison_and_lists_what_else_there_is(tmp_path):
    arguments = ("design", "--effect", 0.02, "--dollars", 100, "--root", tmp_path)
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["proposal"].startswith("Train 2 arms x ") and len(found["designs"]) == 3
    assert "20,054,016" in run(*arguments).stdout


def test_estimate_by_ratio_and_the_table_of_depths(tmp_path):
    by_ratio = json.loads(run("estimate", "--tokens-per-parameter", 10.5, "--root", tmp_path, "--json").stdout)
    assert by_ratio["tokens"] == 4_569_182_520
    rows = json.loads(run("estimate", "--table", "--price", 2, "--root", tmp_path, "--json").stdout)
    (d20,) = (row for row in rows if row["depth"] == 20)
    assert d20["tokens"] == by_ratio["tokens"] and d20["scaling"] == 435_160_240
    assert d20["costs"]["H100"]["dollars"] == pytest.approx(2 * by_ratio["hours"])
    shown = run("estimate", "--table", "--root", tmp_path).stdout
    assert "tokens at 10.5" in shown and "A100, scaled" in shown and "435 M" in shown
    assert "A table with d20 124 M" in shown and "at $3 an hour" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("design", "--effect", "0", "--dollars", "1"), "The effect is 0: give a number above 0."),
        (("judge", "a=x", "b=y", "--name", "a/b"), "The verdict's name is 'a/b': use lower-case letters"),
        (("inspect",), "No raw data is named: give its URL or folder, or several with --set sources=..."),
        (("prepare", "--select", "all"), "No raw data is named"),
        (("judge", "top16"), "'top16' names no runs of an arm"),
        (("judge", "a=x", "a=y"), "The arm a is given twice"),
        (("judge", "a=x", "b=y"), "no complete artifact runs/x/result"),
        (("report", "nobody"), "There is no run, verdict or ladder 'nobody'"),
        (("estimate", "0"), "'0' is no number of tokens: write 2000000000, 2e9 or 2B"),
        (("estimate",), "There is no budget: give TOKENS, --tokens-per-parameter, or --table"),
        (("estimate", "5", "--table"), "--table has a budget for each depth"),
        (("estimate", "5", "--tokens-per-parameter", "10"), "tokens 5 and tokens_per_parameter 10 are both given"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(tmp_path, arguments, message):
    found = run(*arguments, "--root", tmp_path)
    assert found.exit_code == 1
    assert message in found.stderr and found.stderr.count("\n") == 1
