"""Documents on which the rules of two arms disagree, as strata of a verdict: where a selection shows."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.sequence import Steps, prepare_arm, prepare_arms
from tasks.records.layout import DOCUMENTS, STRATA, PoolFolder
from tasks.spec import Arm, Pool, Training, with_common_population
from tasks.store.root import Root
from tasks.verdict.taken import chances, disagreements


def test_documents_are_of_the_arm_that_is_likelier_to_take_them():
    known = {"top": np.array([1.0, 0.4, 0.0, 0.0]), "rand": np.array([0.3, 0.3, 0.3, 0.0])}
    ((pair, codes, labels),) = disagreements(known)
    assert pair == ("top", "rand")
    assert [labels[code] for code in codes] == [
        "rather in top",
        "rather in top",
        "rather in rand",
        "equally in top and rand",
    ]
    assert disagreements({"a": known["rand"], "b": known["rand"]}) == [], "equal rules disagree nowhere"
    assert disagreements({"top": known["top"]}) == []
    again = {"a": known["rand"], "b": 0.999 * known["rand"]}
    assert disagreements(again) == [], "another draw lost a few more duplicates"
    small = {"top": np.array([1.0, 0.0]), "rand": np.array([0.001, 0.001])}
    assert disagreements(small)[0][1].tolist() == [0, 1], "a small share is more than none"


def test_the_rules_of_prepared_arms_are_applied_to_the_holdouts_own_ratings(sample, tmp_path):
    root = Root(tmp_path / "root")
    pool = Pool(
        source=str(sample),
        vocab_size=512,
        holdout_documents=60,
        holdout_fraction=0.1,
        tokenizer_characters=200_000,
    )
    arms = [
        Arm(name="top", share=0.3),
        Arm(name="bottom", select="bottom", share=0.3),
        Arm(name="rand", select="random", share=0.3),
        Arm(name="few", share=0.3, where="factual_accuracy_average > 1"),
    ]
    results, text = {}, {}
    for arm in arms:
        made = prepare_arm(root, pool, arm, Training(sequence_length=64), Steps())
        spec = {"arm": arm.of(pool).identity()}
        manifest = SimpleNamespace(spec=spec, inputs={"arm": made.arm_id, "pool": made.pool_id})
        results[arm.name], text[arm.name] = [SimpleNamespace(manifest=manifest)], made.text.facts
    known = chances(root, results)
    assert set(known) == {"top", "bottom", "rand"}, "a filter is more than a rating"
    strata = root.open(PoolFolder(made.pool_id).strata(arms[0].of(pool).score))
    scores = pq.read_table(strata.path / STRATA)["score"].to_numpy()
    cut = text["top"]["cut_off_score"]
    assert np.array_equal(known["top"] == 1, scores > cut) and (known["top"][scores < cut] == 0).all()
    assert known["top"].mean() == np.clip(known["top"].mean(), 0.15, 0.45), "the holdout is like the pool"
    assert known["bottom"][scores < text["bottom"]["cut_off_score"]].min() == 1
    assert np.allclose(known["rand"], 0.3, atol=0.01)
    pairs = {pair: [labels[code] for code in codes] for pair, codes, labels in disagreements(known)}
    assert all(
        label == ("rather in top" if score > cut else "rather in rand")
        for label, score in zip(pairs["top", "rand"], scores, strict=True)
        if score != cut
    )


def test_no_arm_would_rather_take_what_its_population_leaves_out(tmp_path):
    documents, dice = 600, np.random.default_rng(1)
    ratings = {name: dice.random(documents) for name in ("a", "b")}
    lacking = dice.random(documents) < 0.3
    table = {"text": [f"document {n} of this pool" for n in range(documents)], "row": np.arange(documents)}
    table |= {"a": ratings["a"], "b": pa.array(ratings["b"], mask=lacking)}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    root = Root(tmp_path / "root")
    pool = Pool(source=str(tmp_path / "data.parquet"), score={"b": 1}, vocab_size=300, holdout_fraction=0.2)
    whole = Arm(name="whole", select="random", share=0.3, population=())
    few = Arm(name="few", select="all", score={"a": 1}, population=("b",))
    arms = [
        Arm(name="top", score={"a": 1}, share=0.3),
        Arm(name="least", min_score=0.7),
        Arm(name="rand", select="random", share=0.3),
    ]
    arms = [*with_common_population(pool, arms), whole, few]
    results = {}
    for arm, made in zip(arms, prepare_arms(root, pool, arms, Training(sequence_length=16), Steps()), strict=True):
        spec = {"arm": arm.of(pool).identity(), "pool": pool.identity()}
        manifest = SimpleNamespace(spec=spec, inputs={"arm": made.arm_id, "pool": made.pool_id})
        results[arm.name] = [SimpleNamespace(manifest=manifest)]
    known = chances(root, results)
    held = pq.read_table(root.path(PoolFolder(made.pool_id).holdout) / DOCUMENTS)["row"].to_numpy()
    rated, a, b = ~lacking[held], ratings["a"][held], ratings["b"][held]
    assert not known["top"][~rated].any() and known["top"][rated & (a > 0.75)].all()
    assert np.array_equal(known["least"], np.where(rated, b >= 0.7, 0))
    assert np.array_equal(known["rand"] > 0, rated) and np.array_equal(known["few"], rated)
    assert known["whole"].all(), "its population asks for no rating"
    left = {name: results[name] for name in ("top", "few")}
    assert not chances(root, left), "nothing here tells which documents are rated by b"
