"""A pool of several sources: subsets that overlap, one holdout and one tokenizer for all, a holdout from elsewhere."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, build_holdout, build_index, build_sample, build_strata, plan_arm
from tasks.errors import InputError
from tasks.records.layout import arm_id, pool_id
from tasks.spec import Arm, Pool
from tasks.store import bulk
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob
from tasks.store.root import Root
from tests.corpus.corpora import shard_texts

TOP = Arm(name="top16", select="subset", subset="top16", documents_per_shard=64)
RAND = Arm(name="rand16", select="subset", subset="rand16", documents_per_shard=64)
SIZES = {"holdout_documents": 64, "holdout_fraction": 0.2, "tokenizer_characters": 4_000, "format": "prebuilt"}
TEXTS = [f"document {i} " + "word " * (i % 40) for i in range(700)]
TOP_TEXTS, RAND_TEXTS = TEXTS[:400], TEXTS[300:]  # 100 in both


def write(folder: Path, texts: list[str], **columns: list) -> None:
    """A folder of two files with small row groups."""
    folder.mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(len(texts)), 2)):
        table = {"text": [texts[i] for i in part]} | {k: [v[i] for i in part] for k, v in columns.items()}
        pq.write_table(pa.table(table), folder / f"part_{number}.parquet", row_group_size=25)


@pytest.fixture(scope="module")
def subsets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One with scores and token counts, one with text alone."""
    folder = tmp_path_factory.mktemp("subsets")
    counts = [len(text.split()) for text in TOP_TEXTS]
    write(folder / "top", TOP_TEXTS, score=list(np.linspace(5, 3, 400)), token_count=counts)
    write(folder / "rand", RAND_TEXTS)
    return {"top16": (folder / "top").as_uri(), "rand16": (folder / "rand").as_uri()}


@pytest.fixture(scope="module")
def pool(subsets: dict[str, str]) -> Pool:
    return Pool(name="ready", sources=subsets, **SIZES)


def held_out(root: Root, pool: Pool) -> pa.Table:
    return pq.read_table(build_holdout(root, pool).path / "documents.parquet")


def texts_of(folder: Path) -> tuple[list[str], list[str]]:
    *shards, holdout = shard_texts(folder)
    return [text for shard in shards for text in shard], holdout


def test_an_arm_is_a_source_without_the_common_holdout(pool: Pool, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    top, rand = build_arms(root, pool, [TOP, RAND])
    held = held_out(root, pool)["text"].to_pylist()
    assert len(set(held)) == len(held) == 64
    for made, stored in ((top, TOP_TEXTS), (rand, RAND_TEXTS)):
        texts, holdout = texts_of(made.path)
        assert texts == [text for text in stored if text not in set(held)]  # as stored
        assert holdout == held
        assert made.facts["documents"] + len(set(held) & set(stored)) == 400
    plan = plan_arm(root, pool, TOP)
    assert (plan.pool_documents, plan.tokens is not None) == (800, True)
    assert plan_arm(root, pool, RAND).tokens is None  # its source has no counts


def test_the_holdout_is_of_all_sources_alike_and_says_which(pool: Pool, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    held = held_out(root, pool).to_pylist()
    stored = {"top16": set(TOP_TEXTS), "rand16": set(RAND_TEXTS)}
    assert all(row["text"] in stored[row["source"]] for row in held)
    facts = build_holdout(root, pool).facts
    assert facts["documents_of"] == {name: sum(row["source"] == name for row in held) for name in stored}
    assert abs(facts["documents_of"]["top16"] - 32) <= 2
    decile = pq.read_table(build_strata(root, pool, pool.score).path / "strata.parquet")["decile"].to_pylist()
    rated = {row["source"] for row, found in zip(held, decile, strict=True) if found >= 0}
    assert rated == {"top16"} and decile.count(-1) == facts["documents_of"]["rand16"]


def test_what_sources_share_is_taken_out_of_both_and_estimated(tmp_path: Path) -> None:
    write(tmp_path / "a", TEXTS[:400])
    write(tmp_path / "b", TEXTS[200:600])
    sources = {"a": str(tmp_path / "a"), "b": str(tmp_path / "b")}
    pool = Pool(sources=sources, seed=0, **SIZES | {"holdout_documents": 160})
    root = Root(tmp_path / "root")
    made = build_arms(root, pool, [Arm(name=name, select="subset", subset=name) for name in sources])
    held = set(held_out(root, pool)["text"].to_pylist())
    for arm in made:
        assert not held & set(texts_of(arm.path)[0])
        assert 120 < arm.facts["shared_documents"] < 280  # 200 are in both


def test_a_document_of_both_sources_is_in_the_holdout_once(subsets: dict[str, str], tmp_path: Path) -> None:
    pool = Pool(sources={"a": subsets["top16"], "b": subsets["top16"]}, **SIZES | {"holdout_documents": 160})
    root = Root(tmp_path / "root")
    held = held_out(root, pool)["text"].to_pylist()
    assert len(held) == len(set(held)) == 160
    assert build_holdout(root, pool).facts["repeated_texts"] > 0


def test_the_tokenizer_sees_every_source_however_large_its_row_groups(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"text": [f"{name} {text}" for text in TEXTS]}), tmp_path / name / "all.parquet")
    pool = Pool(sources={name: str(tmp_path / name) for name in "ab"}, **SIZES)
    sampled = pq.read_table(build_sample(Root(tmp_path / "root"), pool).path / "sample.parquet")["text"].to_pylist()
    sizes = {name: sum(len(text) for text in sampled if text.startswith(name)) for name in "ab"}
    assert sizes["a"] == pytest.approx(2_000, abs=300)
    assert sizes["b"] == pytest.approx(2_000, abs=300)


def test_a_part_of_a_source_is_drawn_at_random(pool: Pool, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    arm = Arm(name="some", select="random", subset="rand16", share=0.25, order="shuffled")
    (made,) = build_arms(root, pool.model_copy(update={"format": "unrated"}), [arm])
    texts, holdout = texts_of(made.path)
    assert set(texts) <= set(RAND_TEXTS) - set(holdout)
    assert made.facts["population"] == pytest.approx(400 - 32, abs=3)
    assert len(texts) + made.facts["holdout_texts_removed"] == round(0.25 * made.facts["population"])


def test_a_holdout_from_elsewhere_is_taken_out_of_arms_and_of_nothing_else(
    subsets: dict[str, str], tmp_path: Path
) -> None:
    elsewhere = [*TEXTS[10:20], *(f"another document {i}" for i in range(30)), *TEXTS[10:15], ""]
    write(tmp_path / "held" / "web", elsewhere)
    pool = Pool(sources=subsets, holdout=str(tmp_path / "held"), **SIZES)
    root = Root(tmp_path / "root")
    (made,) = build_arms(root, pool, [TOP])
    texts, holdout = texts_of(made.path)
    assert sorted(holdout) == sorted(set(elsewhere) - {""})
    assert texts == [text for text in TOP_TEXTS if text not in set(elsewhere)]
    assert (made.facts["holdout_texts_removed"], made.facts["population"]) == (10, 400)
    held = build_holdout(root, pool)
    assert (held.facts["documents"], held.facts["repeated_texts"], held.facts["empty_texts"]) == (40, 5, 1)
    assert set(held_out(root, pool)["source"].to_pylist()) == {"web"}
    plan = plan_arm(root, pool, TOP)
    assert (plan.pool_documents, plan.holdout_documents) == (800, 40)
    sampled = pq.read_table(build_sample(root, pool).path / "sample.parquet")["text"].to_pylist()
    assert not any(text.startswith("another") for text in sampled)


def test_a_rated_pool_takes_a_holdout_without_ratings(corpus: Path, tmp_path: Path) -> None:
    write(tmp_path / "held", [f"another document {i}" for i in range(30)])
    pool = Pool(source=corpus.as_uri(), holdout=str(tmp_path / "held"), holdout_documents=20)
    root = Root(tmp_path / "root")
    assert build_strata(root, pool, pool.score).facts["unrated_documents"] == 20
    (made,) = build_arms(root, pool, [Arm(share=0.5)])
    assert all(text.startswith("document") for text in texts_of(made.path)[0])
    assert plan_arm(root, pool, Arm()).pool_documents == 360


def test_bulk_copies_of_several_containers_give_the_same_arms(
    subsets: dict[str, str], azure: str, tmp_path: Path
) -> None:
    if bulk.why_not(f"az://{azure}") is not None:
        pytest.skip("azcopy does not run here")
    store = open_blobs(f"az://{azure}")
    for name, url in subsets.items():
        for path in sorted(Path(url.removeprefix("file://")).glob("*.parquet")):
            store.upload(path, f"{name}/{path.name}")
    sources = {name: f"az://{azure}/{name}" for name in subsets}
    made = []
    for download in ("ranged", "bulk"):
        (arm,) = build_arms(Root(tmp_path / download), Pool(sources=sources, download=download, **SIZES), [RAND])
        made.append((arm.name, texts_of(arm.path)))
    assert made[0] == made[1]
    assert len(list((tmp_path / "bulk/pools").glob("*/.raw/top16/*.parquet"))) == 2


def test_what_was_made_before_there_were_sources_keeps_its_name(subsets: dict[str, str]) -> None:
    assert not {"sources", "holdout"} & Pool().identity().keys()
    assert "subset" not in Arm().identity()
    ready, blobs = Pool(sources=subsets), [Blob("a.parquet", 1, "e")]
    assert "source" not in ready.identity()
    assert Pool.model_validate(ready.identity()) == ready
    other = dict(reversed(subsets.items()))
    assert pool_id(Pool(sources=other), blobs) == pool_id(ready, blobs) != pool_id(Pool(), blobs)
    assert arm_id(Arm(name="x", subset="top16"), ready, "p") != arm_id(Arm(name="x"), ready, "p")


def test_bad_input_is_named(pool: Pool, subsets: dict[str, str], tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    with pytest.raises(
        ValidationError, match=r"source and sources are both given .az://raw/x; top16, rand16.: give one"
    ):
        Pool(source="az://raw/x", sources=subsets)
    with pytest.raises(ValidationError, match="select is subset, but subset names no source"):
        Arm(select="subset")
    with pytest.raises(
        InputError, match="documents of top17, but the pool ready has the sources rand16, top16: name one"
    ):
        plan_arm(root, pool, TOP.model_copy(update={"subset": "top17"}))
    with pytest.raises(InputError, match="but the pool ready has a single source"):
        plan_arm(root, pool.model_copy(update={"sources": None, "source": subsets["top16"]}), TOP)
    with pytest.raises(InputError, match="no document that it may take has its length in 'token_count'"):
        plan_arm(root, pool, RAND.model_copy(update={"select": "random", "tokens": 100}))
    write(tmp_path / "few", ["one", "two", "two"] * 4)
    with pytest.raises(InputError, match="has 2 different documents with text, fewer than 8: name more"):
        build_holdout(root, Pool(sources=subsets, holdout=str(tmp_path / "few"), **SIZES))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.parquet").write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    broken = Pool(sources={**subsets, "broken": str(tmp_path / "broken")}, **SIZES)
    with pytest.raises(InputError, match=f"{tmp_path}/broken/a.parquet is"):
        build_index(root, broken)
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_pool(root, Pool(sources={**subsets, "c": "/nowhere"}))
