"""Questions decide: paired by question, clustered by task, by bits of right answers, with accuracy beside."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.errors import InputError
from tasks.records.near import of_questions
from tasks.records.questions import answers_table, write_answers
from tasks.records.verdict import Verdict
from tasks.reports.artifacts import verdict_markdown
from tasks.reports.report import verdict_report
from tasks.reports.wandb_verdict import tables
from tasks.verdict.judge import judge
from tests.planted import Bench

NAME = "few-0123456789"
TASKS, EACH, CHOICES = 24, 10, 4


def answers(seed: int, offset: float, tasks: int = TASKS, choices: int = CHOICES) -> pa.Table:
    """Of questions of which each task has its own difficulty. A right answer costs `offset` bits per byte more."""
    questions = tasks * EACH
    fixed, random = np.random.default_rng(3), np.random.default_rng(seed)
    number = np.repeat(np.arange(questions), choices)
    right = np.tile(np.arange(choices) == 0, questions)
    bits = 1.5 + 0.3 * np.repeat(fixed.normal(size=tasks), EACH * choices) + 0.3 * fixed.normal(size=len(number))
    bits = bits + 0.01 * random.normal() + np.where(right, offset, 0.0)
    size = np.repeat(fixed.integers(3, 9, questions), choices)
    rows = pa.table(
        {
            "question": number,
            "task": [f"task {place // EACH}" for place in number],
            "cluster": pa.array(number // EACH, pa.int32()),
            "right": right,
            "bytes": size,
            "tokens": size,
            "characters": size,
        }
    )
    return answers_table(-bits * size * np.log(2), rows)


def give(bench: Bench, runs: list[str], offset: float, **what: int) -> None:
    """Add `runs/<run>/questions/NAME` to runs."""
    for seed, run in enumerate(runs):
        table = answers(seed, offset, **what)
        bench.root.build(f"runs/{run}/questions/{NAME}", lambda work, table=table: write_answers(work, table), spec={})


def judged(bench: Bench, arms: dict[str, list[str]], **how: object) -> Verdict:
    return judge(bench.root, "asked", arms, questions=[NAME], **how)


def test_right_answers_decide_and_accuracy_stands_beside(bench):
    arms = bench.arms(seeds=3, top16=0.05, rand16=0.0)
    give(bench, arms["top16"], -0.2)
    give(bench, arms["rand16"], 0.0)
    verdict = judged(bench, arms, target="questions/few")
    (pair,) = verdict.comparisons
    assert verdict.target == pair.target == f"questions/{NAME}" and verdict.questions == (NAME,)
    (row,) = pair.questions
    assert pair.better == "top16" and (pair.difference, pair.low, pair.p) == (row.difference, row.low, row.p)
    assert pair.difference == pytest.approx(-0.2, abs=0.03)
    assert (pair.clusters, row.questions, row.choices) == (TASKS, TASKS * EACH, TASKS * EACH)
    assert row.accuracy.a > row.accuracy.b and row.accuracy.difference == pytest.approx(row.accuracy.a - row.accuracy.b)
    assert row.accuracy.low > 0 and row.accuracy_normed.difference > 0
    assert pair.tokens_saved.estimate is None
    assert f"bits per byte on the right answers to the questions {NAME}. The questions {NAME} decide" in pair.sentence
    shares = f"top16 answers {100 * row.accuracy.a:.1f} % right, rand16 {100 * row.accuracy.b:.1f} %"
    assert shares in pair.sentence and "for new tasks like those of these questions" in pair.sentence
    on_holdout = judged(bench, arms).comparisons[0]
    assert on_holdout.better == "rand16" and on_holdout.questions == pair.questions


def test_the_interval_is_of_tasks_not_of_questions(bench):
    """Shuffled among tasks, the same answers seem to say more: a task's questions are alike."""
    arms = bench.arms(seeds=3, top16=0.0, rand16=0.0)
    bits = np.repeat(0.2 * np.random.default_rng(9).normal(size=TASKS), EACH)  # what a task does to the difference
    widths = {}
    for name, order in (("tasks", np.arange(len(bits))), ("mixed", np.random.default_rng(1).permutation(len(bits)))):
        for label, runs in arms.items():
            for seed, run in enumerate(runs):
                table = answers(seed, 0.0)
                nats = table["nats"].to_numpy() + (label == "top16") * bits[order] * table["bytes"].to_numpy()
                table = table.set_column(table.schema.get_field_index("nats"), "nats", pa.array(nats))
                bench.root.build(
                    f"runs/{run}/questions/{name}", lambda work, table=table: write_answers(work, table), spec={}
                )
        (row,) = judge(bench.root, "x", arms, questions=[name]).comparisons[0].questions
        widths[name] = row.high - row.low
    assert widths["tasks"] > 1.8 * widths["mixed"]


def test_report_table_and_markdown_show_them(bench, tmp_path):
    bench.pool()
    arms = bench.arms(seeds=2, top16=0.0, rand16=0.0)
    give(bench, arms["top16"], -0.2)
    give(bench, arms["rand16"], 0.0)
    verdict = judged(bench, arms)
    (row,) = verdict.comparisons[0].questions
    page, text = verdict_report(bench.root, verdict), verdict_markdown(verdict)
    assert "<h2>Questions</h2>" in page and f"<td>{NAME}</td>" in page and "accuracy per character" in page
    assert f"runs/{arms['top16'][0]}/questions/{NAME}" in page
    assert "right answers to few" in text and "accuracy, 0 to 1" in text
    head, rows = tables(verdict)["accuracy"]
    assert dict(zip(head, rows[0], strict=True))["difference"] == row.accuracy.difference
    verdict.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == verdict


def test_without_choices_there_is_no_accuracy(bench):
    arms = bench.arms(seeds=2, top16=0.0, rand16=0.0)
    for runs in arms.values():
        give(bench, runs, 0.0, choices=1)
    (pair,) = judged(bench, arms, target="questions/few").comparisons
    assert pair.questions[0].accuracy is None and pair.questions[0].choices == 0
    assert "with choices" not in pair.sentence and "<td>accuracy" not in verdict_report(bench.root, judged(bench, arms))


def test_few_tasks_are_said(bench):
    arms = bench.arms(seeds=2, top16=0.0, rand16=0.0)
    for runs in arms.values():
        give(bench, runs, 0.0, tasks=10)
    (pair,) = judged(bench, arms, target="questions/few").comparisons
    assert pair.clusters == 10 and "The questions are of fewer than 20 tasks" in pair.sentence


def test_runs_that_were_asked_other_questions_are_refused(bench):
    arms = bench.arms(seeds=2, top16=0.0, rand16=0.0)
    give(bench, arms["top16"], 0.0)
    give(bench, arms["rand16"], 0.0, tasks=10)
    with pytest.raises(InputError, match=f"questions/{NAME} was scored on other documents"):
        judged(bench, arms)
    with pytest.raises(InputError, match="target is 'questions/many', but the questions are few-0123456789"):
        judged(bench, arms, target="questions/many")


def test_an_accuracy_stays_within_its_bounds_where_one_question_tells_arms_apart(bench):
    arms = bench.arms(seeds=3, top16=0.0, rand16=0.0)
    give(bench, arms["top16"], -0.2, tasks=1)
    give(bench, arms["rand16"], 0.0, tasks=1)
    (row,) = judged(bench, arms).comparisons[0].questions
    assert row.accuracy.difference == pytest.approx(0.1) and (row.accuracy.low, row.accuracy.high) == (-1, 1)


def test_questions_whose_text_stands_in_an_arm_are_counted_by_arm_and_judged_without(bench):
    arms = bench.arms(seeds=3, top16=0.05, rand16=0.0)
    give(bench, arms["top16"], -0.2)
    give(bench, arms["rand16"], 0.0)
    assert judged(bench, arms, target="questions/few").near == ()
    bench.near("top16", range(0, TASKS * EACH, 8), what=of_questions(NAME))
    bench.near("rand16", [1], what=of_questions(NAME))
    verdict = judged(bench, arms, target="questions/few")
    assert [(row.label, row.what, row.leaked) for row in verdict.near] == [
        ("top16", f"questions-{NAME}", 30),
        ("rand16", f"questions-{NAME}", 1),
    ]
    (pair,) = verdict.comparisons
    assert (pair.clean.documents, pair.clean.left_out, pair.clean.leaked) == (209, 31, {"top16": 30, "rand16": 1})
    assert (
        "Without the 31 of 240 questions that have near copies in the arms (30 in top16 and 1 in rand16)"
        in pair.sentence
    )
    page = verdict_report(bench.root, verdict)
    assert f"questions-{NAME}" in page and "on 209 questions (31 left out)" in page
    (columns, rows) = tables(verdict)["leaks"]
    assert columns == ["arm", "what", "documents", "unsearchable", "leaked", "copies", "removed"]
    assert [row[:2] + row[4:5] for row in rows] == [
        ["top16", f"questions-{NAME}", 30],
        ["rand16", f"questions-{NAME}", 1],
    ]
