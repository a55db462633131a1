import json
import time
from html.parser import HTMLParser

import pytest

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.stopping import StoppingRule
from tasks.records.verdict import Verdict
from tasks.reports.artifacts import verdict_markdown
from tasks.reports.evidence import Run, Taken, lineage, only_in
from tasks.reports.report import run_report, verdict_report, visible, write_report, write_verdict
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tasks.verdict.judge import judge
from tests.planted import in_rounds, look, plan_of

HOSTILE = "<script>alert(1)</script><img src=http://evil/x onerror=alert(2)>"


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, its text, and whatever would leave it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.links, self.handlers, self.policy = [], [], [], [], None
        self.feed(text)
        self.text = " ".join("".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag == "meta" and ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def compared(make_bench):
    """A root with two arms of three seeds, what they took, and the verdict; all foreign text is hostile."""
    bench = make_bench(hostile=HOSTILE)
    bench.pool()
    bench.arm("top16", range(0, 40), lambda row: f"Document {row} {HOSTILE} " + "x" * 2_000)
    bench.arm("rand16", range(20, 60), lambda row: f"Document {row} says \x1b[31m\u202e hello")
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    return bench, arms, judge(bench.root, "top16-vs-rand16", arms)


def test_a_verdicts_report_stands_alone_and_lets_no_foreign_text_act(compared):
    bench, _, verdict = compared
    read = Reader(verdict_report(bench.root, verdict))
    assert not {"script", "link", "iframe", "object", "form", "base", "i", "img"} & set(read.tags)
    assert read.handlers == []
    assert all(link.startswith("#") for link in read.links)
    assert read.policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert HOSTILE in read.text and "\x1b" not in read.text and "\u202e" not in read.text


def test_a_verdicts_report_tells_the_whole_story(compared):
    bench, arms, verdict = compared
    read = Reader(verdict_report(bench.root, verdict))
    (pair,) = verdict.comparisons
    assert pair.sentence in read.text
    assert "top 16.5 %, best-first" in read.text and "random 16.5 %, best-first" in read.text
    assert "took, rand16 did not: 20" in read.text and "took, top16 did not: 20" in read.text
    assert "boils, says top16" in read.text and "boils, says rand16" in read.text
    made = lineage(bench.root, [Run.find(bench.root, run) for runs in arms.values() for run in runs])
    assert [link.kind for link in made] == ["pool"] * 2 + ["arm"] * 2 + ["run"] * 6
    assert all(link.manifest.fingerprint in read.text for link in made)
    assert all(run in read.text for runs in arms.values() for run in runs)
    assert "az://raw/<i>docs" in read.text
    assert read.tags.count("svg") >= 8
    assert "decile 10" in read.text and "8 to 16 kB" in read.text
    assert "in color: their own interval excludes 0, which only says where to look" in read.text
    assert "1,234 95.5 % 4.25 (4.00)" in read.text


def test_the_verdict_is_an_artifact_made_once_for_its_runs(compared):
    bench, arms, verdict = compared
    made = write_verdict(bench.root, verdict)
    assert Verdict.read(made.path / "verdict.json") == verdict
    assert write_verdict(bench.root, verdict).reused
    fewer = judge(bench.root, "top16-vs-rand16", {label: runs[:2] for label, runs in arms.items()})
    assert write_verdict(bench.root, fewer).name != made.name
    assert write_report(bench.root, made.name.removeprefix("verdicts/")) == made.path / "report.html"


def test_lineage_has_what_the_runs_were_scored_on_beside_the_holdout(bench):
    arms = bench.arms(seeds=2, top16=-0.1, rand16=0.0)
    for arm in arms:
        for seed in (1, 2):
            bench.run(arm, seed, name="outside/wiki")
    bench.core([run for runs in arms.values() for run in runs])
    verdict = judge(bench.root, "beside", arms, outside=["wiki"], core=True)
    text = Reader(verdict_report(bench.root, verdict)).text
    for run in arms["top16"] + arms["rand16"]:
        assert f"runs/{run}/outside/wiki" in text and f"runs/{run}/core" in text
    alone = Reader(verdict_report(bench.root, judge(bench.root, "alone", arms))).text
    assert "/outside/wiki" not in alone and "/core" not in alone


def test_documents_of_one_arm_alone_are_spread_over_its_order_with_their_own_text(compared):
    bench, _, _ = compared
    total, documents = only_in(Taken(bench.root, "top16-arm"), Taken(bench.root, "rand16-arm"))
    assert total == 20
    assert [document.rank for document in documents] == [0, 10, 19]
    assert all(document.text.startswith(f"Document {document.row} ") for document in documents)
    assert all(len(document.text) <= 701 for document in documents)
    total, documents = only_in(Taken(bench.root, "rand16-arm"), Taken(bench.root, "top16-arm"))
    assert [document.row for document in documents] == [40, 50, 59]
    assert [document.rank for document in documents] == [20, 30, 39]


def test_of_an_arm_with_several_draws_the_report_says_which_one_it_shows(compared):
    bench, arms, verdict = compared
    shown = "Of rand16, rand16-arm is shown, the first of its 3 draws."
    assert "is shown, the first of" not in Reader(verdict_report(bench.root, verdict)).text
    drawn = {**arms, "rand16": [bench.run("rand16", 1 + draw, draw=42 + draw) for draw in range(3)]}
    text = Reader(verdict_report(bench.root, judge(bench.root, "drawn", drawn))).text
    assert f"cut after 700 characters. {shown}" in text
    assert f"Documents and text: {shown}" in text and f"by the score of the first arm. {shown}" in text


def test_of_a_remote_arm_only_the_files_that_are_shown_are_fetched(compared, tmp_path):
    bench, _, verdict = compared
    away = Root(tmp_path / "away")
    away.remote = open_blobs(bench.root.url)
    total, documents = only_in(Taken(away, "top16-arm"), Taken(away, "rand16-arm"))
    assert total == 20 and len(documents) == 3
    fetched = sorted(path.name for path in away.folder.rglob("*.parquet"))
    assert fetched == ["documents.parquet", "documents.parquet", "shard_00000.parquet"]
    assert verdict.comparisons[0].sentence in Reader(verdict_report(away, verdict)).text


def test_a_run_report_shows_numbers_cost_and_attempts(compared):
    bench, _, _ = compared
    experiment = bench.experiment("top16", 1)
    run = ledger.open_entry(bench.root, experiment, "pool-0123456789", "top16-arm").run
    facts = bench.root.find(f"runs/{run}/result").facts
    entry = ledger.finish(bench.root, run, "completed", facts=facts)
    assert (entry.text_share, entry.mean_score, entry.arm_mean_score) == (0.955, 4.25, 4.0)
    path = write_report(bench.root, run)
    assert path == bench.root.path(f"runs/{run}/report.html")
    read = Reader(path.read_text())
    assert f"{facts['bpb']:.4f}" in read.text and "25,000" in read.text
    assert entry.attempts[0].host in read.text
    assert "95.5 %of the arm's text" in read.text and "4.25mean score of what was trained on" in read.text
    assert "sequence_length" in read.text


def test_a_run_that_is_still_going_has_a_report_too(bench):
    experiment = bench.experiment("top16", 9)
    run = ledger.open_entry(bench.root, experiment, "pool-0123456789", "top16-arm").run
    line = {"step": 3, "kind": "train", "time": time.time(), "tokens": 30, "loss": 3.0, "tokens_per_second": 9.0}
    (bench.root.path(f"runs/{run}") / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    read = Reader(run_report(bench.root, run))
    assert "running" in read.text and "still going" in read.text
    ledger.finish(bench.root, run, "failed", error=f"no space on {HOSTILE}")
    assert f"no space on {HOSTILE}" in Reader(run_report(bench.root, run)).text


def test_an_unknown_name_is_refused_with_those_there_are(compared):
    bench, _, verdict = compared
    made = write_verdict(bench.root, verdict)
    with pytest.raises(InputError, match=f"There is no run 'nobody'.*{made.path.name}"):
        write_report(bench.root, "nobody")


def test_what_would_act_instead_of_being_seen_is_replaced():
    assert visible('a\u202fb <c> & "d"\n\te') == 'a\u202fb <c> & "d"\n\te'
    assert visible("x\x00\x07\u202ey\ud800") == "x\ufffd\ufffd\ufffdy\ufffd"


def test_a_report_shows_the_plan_every_look_and_where_the_spread_comes_from(bench):
    verdict = in_rounds(bench, StoppingRule(margin=0.002, max_replicates=5), spread=0.004)[-1]
    read = Reader(verdict_report(bench.root, verdict))
    assert "before the first run" in read.text and "looks at 3, 4, 5 replicates an arm" in read.text
    assert "equivalent within 0.002 bits per byte" in read.text and "Looks so far: 3" in read.text
    assert (
        "The interval by source of variance." in read.text
        and "Each replicate, joined where they are paired." in read.text
    )
    assert "initial weights" in read.text and "How far one run of an arm varies" in read.text
    changed = look(bench, plan_of(bench, 5, target="upper half"))
    assert "target: all, now upper half" in Reader(verdict_report(bench.root, changed)).text
    alone = judge(bench.root, "alone", bench.arms(seeds=2, top16=0.0, rand16=0.0))
    assert "judged without a registered plan" in Reader(verdict_report(bench.root, alone)).text


def test_a_report_shows_leaks_by_arm_and_what_is_found_without_them(bench):
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    assert "They were not counted in every arm" in Reader(verdict_report(bench.root, judge(bench.root, "v", arms))).text
    bench.near("top16", range(0, 600, 10))
    bench.near("rand16", [1])
    verdict = judge(bench.root, "v", arms)
    read = Reader(verdict_report(bench.root, verdict))
    assert "top16 holdout 600 0 60 (10.0 %) 60 0" in read.text and "rand16 holdout 600 0 1 (0.2 %) 1 0" in read.text
    assert "Without near copies in any arm, on 539 documents (61 left out)" in read.text
    assert "By near copies in arms" in read.text
    shown = verdict_markdown(verdict)
    assert "| top16 | holdout | 600 | 60 | 60 | 0 |" in shown and "without near copies in any arm" in shown


def test_a_report_claims_no_equal_tokens_and_no_code_but_that_of_the_runs(bench):
    facts = {"top16": {"code": "0.0.7", "tokens": 2_000_000}, "rand16": {"code": "0.0.7"}}
    arms = {arm: [bench.run(arm, seed, facts=known) for seed in (1, 2)] for arm, known in facts.items()}
    text = Reader(verdict_report(bench.root, judge(bench.root, "unequal", arms, allow=["tokens"]))).text
    assert "trained on unequal numbers of tokens: 2,000,000 (top16" in text and "tokens a run" not in text
    assert "version 0.0.7 of the code that trained" in text
