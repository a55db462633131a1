"""Arms that mix several selections: sizes, weights, what several parts select, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.corpus.arm.parts import mix
from tasks.corpus.arm.selection import Selection, select
from tasks.corpus.arm.traits import Traits
from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, plan_arm
from tasks.errors import InputError
from tasks.records.layout import arm_id
from tasks.spec import Arm, Part, Pool
from tasks.store.root import Root
from tests.corpus.corpora import rated_table, shard_texts

RNG = np.random.default_rng(5)
SCORES = RNG.integers(0, 40, 20_000) / 8
TOKENS = RNG.integers(1, 900, 20_000).astype(np.int32)
HELD = np.arange(0, 20_000, 50)
TRAITS = Traits(SCORES)
TOP, RANDOM = Part(select="top", weight=3), Part(select="random")


def choose(arm: Arm, taken: np.ndarray) -> Selection:
    return select(arm, Pool(), TRAITS, TOKENS, np.union1d(HELD, taken))


def mixed(arm: Arm) -> Selection:
    return mix(arm, Pool(), SCORES, TOKENS, choose)


def alone(documents: int, kind: str, *, without: np.ndarray = HELD[:0]) -> np.ndarray:
    return np.sort(choose(Arm(select=kind, documents=documents), without).documents)


def test_parts_have_their_weights_and_the_arm_the_size_of_its_control() -> None:
    made = mixed(Arm(share=0.1, parts=(TOP, RANDOM)))
    assert len(made.documents) == len(set(made.documents.tolist())) == 1_960 == len(choose(Arm(select="random", share=0.1), HELD[:0]).documents)  # fmt: skip
    top, random = made.parts
    assert (top.documents, random.documents, top.weight, random.weight) == (1_470, 490, 0.75, 0.25)
    assert (made.population, made.cut_off) == (19_600, None)
    assert np.isin(alone(1_470, "top"), made.documents).all()
    assert np.array_equal(alone(490, "top"), np.sort(choose(Arm(share=0.025), HELD[:0]).documents))
    assert not np.isin(HELD, made.documents).any()


def test_what_several_parts_select_counts_once_and_is_said() -> None:
    made = mixed(Arm(share=0.1, parts=(TOP, RANDOM)))
    best, drawn = alone(1_470, "top"), alone(490, "random")
    again = np.intersect1d(best, drawn)
    assert [part.again for part in made.parts] == [0, len(again)] and len(again) > 10
    instead = np.setdiff1d(made.documents, best)
    assert np.array_equal(instead, alone(490, "random", without=best)), "the next ones of the same draw"
    assert np.isin(np.setdiff1d(drawn, best), instead).all()
    twice = mixed(Arm(share=0.1, parts=(Part(select="top"), Part(select="top"))))
    assert np.array_equal(np.sort(twice.documents), alone(1_960, "top")) and twice.parts[1].again == 980


@pytest.mark.parametrize("size", [{"tokens": 500_000}, {"share": 0.1, "share_of": "tokens"}])
def test_weights_are_of_tokens_where_the_arm_is_sized_by_tokens(size: dict) -> None:
    arm = Arm(parts=(TOP, RANDOM), **size)
    made = mixed(arm)
    whole = TOKENS[choose(arm.model_copy(update={"parts": (), "select": "random"}), HELD[:0]).documents].sum()
    best = choose(Arm(tokens=round(0.75 * size.get("tokens", whole))), HELD[:0]).documents
    assert np.isin(best, made.documents).all() and len(best) == made.parts[0].documents
    assert 0 <= TOKENS[made.documents].sum() - size.get("tokens", whole - 900) < 1_800


@pytest.mark.parametrize("order", ["best-first", "worst-first", "shuffled"])
def test_a_mixture_has_the_order_of_its_arm(order: str) -> None:
    made = mixed(Arm(share=0.1, parts=(RANDOM, TOP), order=order)).documents
    whole = choose(Arm(select="all", order=order), HELD[:0]).documents
    assert np.array_equal(made, whole[np.isin(whole, made)])


def test_what_cannot_be_mixed_is_said() -> None:
    with pytest.raises(InputError, match=r"The part random of the arm top16 has 0.1 % of 196 documents, which is none"):
        mixed(Arm(share=0.01, parts=(Part(weight=999), RANDOM)))
    with pytest.raises(InputError, match="asks for 30,000 documents, but may take 19,600 of the pool pool: ask for"):
        mixed(Arm(documents=30_000, parts=(TOP, RANDOM)))
    with pytest.raises(ValidationError, match="tokens 5 and documents 5 are both given"):
        Arm(tokens=5, documents=5)


def test_parts_are_a_part_of_the_name_and_are_read_back() -> None:
    arm = Arm(parts=(TOP, RANDOM))
    ids = [arm_id(each, Pool(), "p") for each in (arm, Arm(), Arm(parts=(RANDOM, TOP)))]
    assert len(set(ids)) == 3
    assert "parts" not in Arm().identity() and Arm.model_validate(arm.identity()) == arm
    assert arm.by_score and not Arm(select="top", parts=(RANDOM,)).by_score


def test_parts_of_two_sources_have_their_weights_of_the_arm(tmp_path: Path) -> None:
    for source, rows in (("few", 100), ("many", 400)):
        (tmp_path / source).mkdir()
        texts = [f"document {number} of {source}" for number in range(rows)]
        pq.write_table(
            rated_table(texts, [[number % 37] * 3 for number in range(rows)]), tmp_path / source / "a.parquet"
        )
    sources = {source: (tmp_path / source).as_uri() for source in ("few", "many")}
    root, pool = Root(tmp_path / "root"), Pool(sources=sources, holdout_documents=8)
    parts = (Part(select="random", subset="few"), Part(select="top", subset="many"))
    (made,) = build_arms(root, pool, [Arm(share=0.25, parts=parts)], workers=1)
    found = [text.split()[-1] for shard in shard_texts(made.path)[:-1] for text in shard]
    assert (found.count("few"), found.count("many"), len(found)) == (62, 61, 123)
    with pytest.raises(InputError, match=r"asks for 197 documents, but may take [0-9]+ of the pool pool"):
        build_arms(root, pool, [Arm(share=0.8, parts=parts)], workers=1)


def test_a_mixed_arm_is_built_as_it_is_planned(tmp_path: Path) -> None:
    texts = [f"document {number} of this corpus" for number in range(400)]
    pq.write_table(rated_table(texts, [[number % 37] * 3 for number in range(400)]), tmp_path / "a.parquet")
    root, pool = Root(tmp_path / "root"), Pool(source=tmp_path.as_uri(), holdout_documents=8)
    handle = open_pool(root, pool)
    arms = [Arm(name="mixed", share=0.5, parts=(TOP, RANDOM), documents_per_shard=64), Arm(name="top", share=0.5)]
    plan = plan_arm(root, handle, arms[0])
    made, top = build_arms(root, handle, arms, workers=1)
    built, best = (shard_texts(each.path)[:-1] for each in (made, top))
    found = [text for shard in built for text in shard]
    assert len(found) == len(set(found)) == plan.documents == made.facts["documents"] == 196
    assert made.facts["parts"] == list(plan.parts) and plan.parts[1]["documents"] == 49 and plan.parts[1]["again"] > 0
    assert "parts" not in top.facts
    assert len(set(found) & {text for shard in best for text in shard}) >= 147
