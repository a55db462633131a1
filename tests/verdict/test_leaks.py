"""A verdict on all documents and, beside it, on those without near copies in arms."""

from pathlib import Path

import numpy as np
import pytest

from tasks.reports.artifacts import verdict_markdown
from tasks.reports.report import write_verdict
from tasks.verdict.judge import judge
from tests.planted import DOCUMENTS, Bench, look, plan_of

LEAKED = range(0, DOCUMENTS, 10)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def leaky(bench: Bench, **given: object) -> dict[str, list[str]]:
    """The first arm is worse by 0.01 bits per byte, but has learned a tenth of the documents by heart."""
    top = [bench.run("top16", seed, 0.01, learned=LEAKED, **given) for seed in (1, 2, 3)]
    return {"top16": top, "rand16": [bench.run("rand16", seed, **given) for seed in (1, 2, 3)]}


def test_copies_in_one_arm_flip_the_verdict_on_all_documents_and_not_on_clean_ones(bench: Bench) -> None:
    runs = leaky(bench)
    bench.near("top16", LEAKED)
    bench.near("rand16", [3])
    verdict = judge(bench.root, "v", runs)
    (pair,) = verdict.comparisons
    assert pair.better == "top16" and pair.clean is not None
    assert pair.clean.excludes_zero and 0.005 < pair.clean.difference < 0.015
    assert (pair.clean.documents, pair.clean.left_out) == (DOCUMENTS - 61, 61)
    assert (
        "Without the 61 of 600 documents that have near copies in the arms (60 in top16 and 1 in rand16), rand16 is better by 0."
        in pair.sentence
    )
    assert [(arm.label, arm.leaked, arm.copies) for arm in verdict.near] == [("top16", 60, 60), ("rand16", 1, 1)]


def test_the_parts_with_and_without_copies_are_strata_with_bands(bench: Bench) -> None:
    runs = leaky(bench)
    before = judge(bench.root, "v", runs).comparisons[0]
    assert "near" not in {row.kind for row in before.strata} and before.clean is None
    bench.near("top16", LEAKED)
    bench.near("rand16", [])
    (pair,) = judge(bench.root, "v", runs).comparisons
    clean, copied = (row for row in pair.strata if row.kind == "near")
    assert clean.documents + copied.documents == DOCUMENTS and clean.difference > 0 > copied.difference
    assert copied.stands_out and pair.clean is not None and clean.difference == pytest.approx(pair.clean.difference)
    assert pair.difference == before.difference and pair.low == pytest.approx(before.low, rel=0.01)


def test_without_a_record_for_each_arm_nothing_is_said_of_copies(bench: Bench) -> None:
    runs = leaky(bench)
    bench.near("top16", LEAKED)
    verdict = judge(bench.root, "v", runs)
    assert verdict.near == () and verdict.comparisons[0].clean is None and "near cop" not in verdict.sentences[0]


def test_removed_copies_are_counted_and_leave_no_document_out(bench: Bench) -> None:
    runs = bench.arms(top16=0.01, rand16=0.0)
    for arm in runs:
        bench.near(arm, LEAKED, removed=True)
    verdict = judge(bench.root, "v", runs)
    assert verdict.comparisons[0].clean is None
    assert [(arm.leaked, arm.copies, arm.removed) for arm in verdict.near] == [(0, 0, 60)] * 2


def test_the_clean_part_of_a_half_decides_beside_that_half(bench: Bench) -> None:
    runs = leaky(bench)
    bench.near("top16", LEAKED)
    bench.near("rand16", [])
    (pair,) = judge(bench.root, "v", runs, target="upper half").comparisons
    upper = np.argsort(np.argsort(bench.score)) * 10 // DOCUMENTS >= 5
    assert pair.clean is not None and pair.clean.left_out == upper[list(LEAKED)].sum()
    assert pair.clean.documents == upper.sum() - pair.clean.left_out


def test_texts_from_elsewhere_have_copies_of_their_own(bench: Bench) -> None:
    runs = leaky(bench)
    name = "papers-0123456789"
    leaky(bench, name=f"outside/{name}")
    for arm, leaked in (("top16", LEAKED), ("rand16", ())):
        bench.near(arm, leaked, what=name)
    verdict = judge(bench.root, "v", runs, outside=[name], target="outside/papers")
    (pair,) = verdict.comparisons
    assert pair.better == "top16" and pair.clean is not None and pair.clean.left_out == 60 and pair.clean.difference > 0
    assert {arm.what for arm in verdict.near} == {name}


def test_the_plan_says_that_the_clean_difference_stands_beside_the_target(bench: Bench) -> None:
    plan = plan_of(bench, 3)
    for arm in ("top16", "rand16"):
        bench.near(arm, [1, 2])
    verdict = look(bench, plan, 0.01)
    assert verdict.registered is not None and verdict.registered.plan.clean == "beside"
    assert len(verdict.registered.looks) == 1 and "Without the 2 of 600 documents" in verdict.sentences[0]


@pytest.mark.parametrize("target", ["all", "upper half"])
def test_a_target_that_an_arm_has_all_of_is_said_to_leave_nothing(bench: Bench, target: str) -> None:
    runs = leaky(bench)
    bench.near("top16", range(DOCUMENTS))
    bench.near("rand16", [])
    verdict = judge(bench.root, "v", runs, target=target)
    (pair,) = verdict.comparisons
    assert pair.clean is not None and (pair.clean.documents, pair.clean.difference, pair.clean.low) == (0, None, None)
    whole = "of the whole holdout " if target != "all" else ""
    assert f"in the arms ({whole}600 in top16 and 0 in rand16), too few are left to judge." in pair.sentence
    write_verdict(bench.root, verdict)
    assert "without near copies in any arm" in verdict_markdown(verdict, "")
