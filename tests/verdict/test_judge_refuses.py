"""Which runs are judged together: what is refused, by name, and what is allowed or said."""

from contextlib import nullcontext

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.records.layout import SCORES
from tasks.records.scores import read_scores
from tasks.spec import Pool, Training
from tasks.verdict.judge import judge
from tasks.verdict.strata import sum_scores
from tasks.verdict.wording import worded
from tests.planted import TRAINING


@pytest.mark.parametrize("name", ["a/b", "../x", "Top", ""])
def test_a_name_that_no_folder_can_have_is_refused(bench, name):
    with pytest.raises(InputError, match=r"verdict's name is .*: use lower-case letters"):
        judge(bench.root, name, bench.arms(seeds=1, top16=0.0, rand16=0.0))


def test_runs_of_one_arm_are_its_own_though_only_one_records_what_it_read(bench):
    packed = bench.packed("arms/top16-arm/packed/256-split")
    arms = {
        "top16": [bench.run("top16", 1, inputs={"packed": packed}), bench.run("top16", 2)],
        "rand16": [bench.run("rand16", seed) for seed in (1, 2)],
    }
    assert judge(bench.root, "x", arms).arms[0].seeds == (1, 2)


def test_unmatched_arms_are_refused_unless_allowed(bench):
    other = Training(depth=4, sequence_length=256, tokens=1_000_000, precision="fp32", device="cpu", batch_tokens=512)
    arms = {"top16": [bench.run("top16", 1)], "rand16": [bench.run("rand16", 1, training=other)]}
    with pytest.raises(InputError, match=r"training\.batch_tokens: nothing \(top16-\S+\) against 512 \(rand16-"):
        judge(bench.root, "x", arms)
    verdict = judge(bench.root, "x", arms, allow=["training.batch_tokens"])
    text = f"nothing ({arms['top16'][0]}) against 512 ({arms['rand16'][0]})"
    assert verdict.matched.allowed == {"training.batch_tokens": text}


@pytest.mark.parametrize(("rows_left", "refused"), [(97, False), (98, True)])  # a batch has 97.7 rows
def test_runs_that_read_the_front_of_a_larger_arm_are_refused_unless_allowed(bench, rows_left, refused):
    front = TRAINING.model_copy(update={"budget_from": "front"})
    left = {"rows_left": rows_left}
    arms = {arm: [bench.run(arm, 1, training=front, facts=left)] for arm in ("top16", "rand16")}
    if refused:
        with pytest.raises(
            InputError, match=r"The budget takes the front of top16, rand16.*allow: training\.budget_from"
        ):
            judge(bench.root, "x", arms)
    allowed = judge(bench.root, "x", arms, allow=["training.budget_from"]).matched.allowed
    assert ("training.budget_from" in allowed) == refused


def test_runs_of_another_budget_or_code_are_refused(bench):
    arms = {"top16": [bench.run("top16", 1)], "rand16": [bench.run("rand16", 1, facts={"tokens": 5, "code": "9"})]}
    with pytest.raises(InputError, match=r"code: 0\.1\.0 .* against 9 .*; tokens: 1,000,000 .* against 5 "):
        judge(bench.root, "x", arms)


def test_runs_of_unlike_machines_are_refused_though_others_lie_between(bench):
    gpu = {"device": "NVIDIA H100 80GB HBM3", "compute": "cuda, bf16 products, fused kernels, attention by FA3"}
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    arms["rand16"][1] = bench.run("rand16", 3, facts=gpu)
    with pytest.raises(
        InputError, match=r"compute: cpu.* against cuda.*; device: cpu .* against NVIDIA H100 .*rand16-"
    ):
        judge(bench.root, "x", arms)
    assert set(judge(bench.root, "x", arms, allow=["device", "compute"]).matched.allowed) == {"device", "compute"}


@pytest.mark.parametrize(("pattern", "refused"), [("L", False), ("SSSL", True)])
def test_runs_of_equal_attention_by_two_names_are_alike(bench, pattern, refused):
    names = ("cuDNN (full) and FlexAttention (windows); Flash Attention 3 is not available (ImportError)", "cuDNN")
    training = TRAINING.model_copy(update={"window_pattern": pattern})
    arms = {
        arm: [bench.run(arm, 1, training=training, facts={"compute": f"cuda, attention by {name}"})]
        for arm, name in zip(("top16", "rand16"), names, strict=True)
    }
    with pytest.raises(InputError, match=r"compute: .*FlexAttention") if refused else nullcontext():
        judge(bench.root, "x", arms)


def test_what_is_not_known_of_a_run_is_listed(bench):
    arms = {"top16": [bench.run("top16", 1, facts={"torch": None})], "rand16": [bench.run("rand16", 1)]}
    unknown = judge(bench.root, "x", arms).matched.unknown
    assert unknown["torch"] == f"not known for {arms['top16'][0]}"
    assert set(unknown) == {"torch", "evaluation.content", "tokenizer.content"}, (
        "planted runs were made from no artifacts"
    )


def test_equal_arms_are_a_control_or_refused(bench):
    rows = {"inputs": {"packed": bench.packed("arms/shared-arm/packed/256-split")}, "arm_id": "shared-arm"}
    arms = {
        label: [bench.run(label, seed, **rows) for seed in seeds] for label, seeds in (("a", (1, 2)), ("b", (3, 4)))
    }
    with pytest.raises(InputError, match=r"arms a and b are the same selection, .*: compare .* or set control to aa"):
        judge(bench.root, "x", arms)
    verdict = judge(bench.root, "x", arms, control="aa")
    assert verdict.control == "aa"
    assert "A control: the arms are equal on purpose." in verdict.sentences[0]
    (pair,) = verdict.comparisons
    alarm = pair.model_copy(update={"low": 0.001, "difference": 0.002, "high": 0.003})
    said = worded(alarm, *verdict.arms, "aa").sentence
    assert "equal on purpose, so this is a false alarm, as 5 % of such intervals are, or a fault." in said
    with pytest.raises(InputError, match="a and b hold the same rows and both have a run with seed 2"):
        judge(bench.root, "x", {**arms, "b": [bench.run("b", 2, **rows), arms["b"][0]]}, control="aa")
    with pytest.raises(InputError, match="control 'bb' is unknown"):
        judge(bench.root, "x", arms, control="bb")


def test_arms_that_hold_the_same_rows_under_two_names_are_the_same(bench):
    packed = {label: bench.packed(f"arms/{label}-arm/packed/256-split") for label in ("a", "b")}
    arms = {label: [bench.run(label, 1, inputs={"packed": packed[label]})] for label in packed}
    with pytest.raises(InputError, match="arms a and b are the same selection"):
        judge(bench.root, "x", arms)


@pytest.mark.parametrize("score", [0.0, np.nan])
def test_an_unrated_holdout_has_no_halves_to_decide_by(bench, score):
    pool, bench.score = Pool(format="unrated"), np.full(600, score)
    arms = {arm: [bench.run(arm, 1, pool=pool)] for arm in ("a", "b")}
    assert judge(bench.root, "x", arms).target == "all"
    with pytest.raises(InputError, match="target is 'upper half', but the documents of the holdout are unrated"):
        judge(bench.root, "x", arms, target="upper half")


def test_runs_and_scores_of_what_is_there_no_more_are_refused(bench):
    name = "arms/top16-arm/packed/256-split"
    arms = {"top16": [bench.run("top16", 1, inputs={"packed": bench.packed(name)})], "rand16": [bench.run("rand16", 1)]}
    run = arms["top16"][0]
    judge(bench.root, "x", arms)
    bench.root.remove(name)
    judge(bench.root, "x", arms)
    bench.packed(name, rows="other rows")
    with pytest.raises(InputError, match=f"runs/{run}/result was made from another {name} .*: delete the folder"):
        judge(bench.root, "x", arms)


def test_scores_of_a_run_that_was_trained_again_are_refused(bench):
    arms = {"top16": [bench.run("top16", 1)], "rand16": [bench.run("rand16", 1)]}
    (run,) = arms["top16"]
    for each in ("top16", "rand16"):
        bench.run(each, 1, name="outside/wiki", inputs={"result": bench.root.find(f"runs/{arms[each][0]}/result")})
    judge(bench.root, "x", arms, outside=["wiki"])
    bench.root.remove(f"runs/{run}/result")
    bench.run("top16", 1, offset=0.1)
    with pytest.raises(InputError, match=f"runs/{run}/outside/wiki was made from another runs/{run}/result"):
        judge(bench.root, "x", arms, outside=["wiki"])


def test_wrong_runs_are_refused_by_name(bench):
    first, again = bench.run("top16", 1), bench.run("top16", 1, facts={"tokens": 5}, arm_id="top16-arm2")
    rand = bench.run("rand16", 1)
    for arms, message in (
        ({"top16": [first]}, "at least 2 arms"),
        ({"top16": [first], "rand16": []}, "rand16 has no runs"),
        ({"top16": [first, first], "rand16": [rand]}, "two runs with seed 1"),
        ({"top16": [first], "same": [first]}, "are the same selection"),
        (
            {"top16": [first, bench.run("top16", 2, arm_id="top16-other")], "rand16": [rand]},
            "trained on different arms",
        ),
        ({"top16": [first], "rand16": ["rand16-gone"]}, "no complete artifact runs/rand16-gone/result"),
    ):
        with pytest.raises(InputError, match=message):
            judge(bench.root, "x", arms)
    assert again != first


def test_too_few_documents_are_refused_in_the_same_words_wherever_they_are_from(bench):
    arms = {arm: [bench.run(arm, seed) for seed in (1, 2)] for arm in ("top16", "rand16")}
    results = {arm: [bench.root.open(f"runs/{run}/result") for run in runs] for arm, runs in arms.items()}
    for what, named in ({}, "documents of the holdout"), ({"what": "texts wiki"}, "texts wiki"):
        with pytest.raises(InputError, match=f"^There are 7 {named}: a verdict needs at least 8, better 1,000.$"):
            sum_scores(results, read=lambda run: read_scores(run.path / SCORES).slice(0, 7), **what)


def test_runs_scored_on_other_documents_are_refused(bench):
    first = bench.run("top16", 1)
    bench.bytes = bench.bytes + 1
    with pytest.raises(InputError, match="scored on other documents"):
        judge(bench.root, "x", {"top16": [first], "rand16": [bench.run("rand16", 1)]})


def test_the_same_rows_read_once_and_twice_are_two_arms_with_their_epochs(bench):
    rows = {"packed": bench.packed("arms/x/packed/256-split"), "arm": "x"}
    arms = {
        arm: [bench.run(arm, seed, inputs=rows, epochs=epochs) for seed in (1, 2)]
        for arm, epochs in (("top-once", 1), ("top-twice", 2))
    }
    assert [arm.epochs for arm in judge(bench.root, "x", arms).arms] == [1, 2]
    equal = {arm: [bench.run(arm, seed, inputs=rows) for seed in (1, 2)] for arm in ("top-a", "top-b")}
    with pytest.raises(InputError, match="top-a and top-b are the same selection"):
        judge(bench.root, "x", equal)


def test_runs_that_do_not_say_what_they_read_are_judged_without_it(bench):
    unknown = {"text_share": None}
    arms = {arm: [bench.run(arm, seed, facts=unknown) for seed in (1, 2)] for arm in ("top16", "rand16")}
    assert judge(bench.root, "x", arms).arms[0].text_share is None
