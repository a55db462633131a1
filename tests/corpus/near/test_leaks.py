"""Near copies of the holdout in arms: counted in the pass over the text and in the shards alike, or left out of every arm."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.corpus.near.leaks import Beside, count_leaks, write_found
from tasks.corpus.prepare import build_arms
from tasks.records.layout import NEAR, POOLS, ArmFolder
from tasks.records.near import HOLDOUT, leaked
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import prose, rated_table, shard_texts
from tests.corpus.near.test_passages import edited

HELD = 16
COPIES = 6
ARMS = [Arm(name="top", share=0.5), Arm(name="bottom", select="bottom", share=0.5), Arm(name="all", select="all")]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A holdout of its own place, of whose first documents the best rated documents of the pool are edited copies: two of the first."""
    held = prose(HELD, seed=1)
    copies = [edited(held[number], 0.1, number) for number in (0, *range(COPIES - 1))]
    others = prose(200, seed=2)
    tables = {"raw": rated_table(copies + others, [[float(-i)] * 3 for i in range(len(copies + others))])}
    tables["held"] = rated_table(held, [[0.0] * 3] * HELD)
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "a.parquet", row_group_size=50)
    return Pool(source=(tmp_path / "raw").as_uri(), holdout=(tmp_path / "held").as_uri(), holdout_documents=HELD)


def record(root: Root, arm: str) -> dict[str, list]:
    return pq.read_table(root.open(ArmFolder(arm).near(HOLDOUT)).path / NEAR).to_pydict()


def made(root: Root, pool: Pool) -> dict[str, str]:
    """Ids of the arms, by name."""
    texts = build_arms(root, pool, ARMS, workers=1)
    return {arm.name: text.name.split("/")[1] for arm, text in zip(ARMS, texts, strict=True)}


def test_an_arm_says_which_held_out_documents_it_has_near_copies_of(tmp_path: Path, pool: Pool) -> None:
    root = Root(tmp_path / "root")
    arms = made(root, pool)
    found = record(root, arms["top"])
    assert found["document"] == list(range(COPIES - 1)) and found["copies"] == [2, 1, 1, 1, 1]
    assert sorted(found["rank"]) == [*found["rank"]] and all(0 < share < 1 for share in found["share"])
    assert record(root, arms["bottom"])["document"] == []
    facts = root.manifest(ArmFolder(arms["all"]).near(HOLDOUT)).facts
    assert facts == {"documents": HELD, "unsearchable": 0, "leaked": COPIES - 1, "copies": COPIES, "removed": False}


def test_the_shards_of_an_arm_say_the_same_as_the_pass_over_its_text(tmp_path: Path, pool: Pool) -> None:
    root = Root(tmp_path / "root")
    arms = made(root, pool)
    before = {name: record(root, arm) for name, arm in arms.items()}
    for arm in arms.values():
        root.remove(ArmFolder(arm).near(HOLDOUT))
    assert made(root, pool) == arms
    assert {name: record(root, arm) for name, arm in arms.items()} == before


def test_removed_copies_are_in_no_arm_and_counted(tmp_path: Path, pool: Pool) -> None:
    root = Root(tmp_path / "root")
    kept, removed = made(root, pool), made(root, pool.model_copy(update={"near": "remove"}))
    whole, clean = (
        [text for shard in shard_texts(root.path(ArmFolder(arms["all"]).text))[:-1] for text in shard]
        for arms in (kept, removed)
    )
    assert len(whole) == len(clean) + COPIES and set(clean) < set(whole)
    found = record(root, removed["all"])
    assert found["document"] == list(range(COPIES - 1)) and set(found["rank"]) == {None}
    assert root.manifest(ArmFolder(removed["all"]).text).facts["near_copies_removed"] == COPIES
    assert root.manifest(ArmFolder(removed["all"]).near(HOLDOUT)).facts["copies"] == COPIES
    assert record(root, removed["bottom"])["document"] == []


def test_a_copy_that_a_later_rule_finds_in_an_arm_is_in_it_though_its_pool_removes_copies(
    tmp_path: Path, pool: Pool
) -> None:
    root = Root(tmp_path / "root")
    arm = made(root, pool)["all"]
    (passages,) = map(root.open, root.names(f"{POOLS}/{root.manifest(ArmFolder(arm).text).inputs['pool']}/passages"))
    root.remove(ArmFolder(arm).near(HOLDOUT))
    facts = write_found(root, arm, passages, None, removed=True).facts
    assert facts["copies"] == COPIES and facts["removed"] is False


def test_texts_that_come_later_are_found_in_an_arm_that_is_there(tmp_path: Path, pool: Pool) -> None:
    root = Root(tmp_path / "root")
    arm = made(root, pool)["bottom"]
    (first, *_) = shard_texts(root.path(ArmFolder(arm).text))
    texts = [*prose(2, seed=77), edited(first[5], 0.1, 1), prose(1, seed=78)[0] + " " + first[9]]
    asked = []

    def beside(what: str, given: list[str]) -> Beside:
        return Beside(what, lambda: asked.append(what) or given, {"texts": what})

    wanted = [beside("later-0123456789", texts), beside("questions-few-0123456789", texts[2:])]
    counted, few = count_leaks(root, arm, wanted, 0.8)
    assert leaked(counted.path).tolist() == [2, 3] and leaked(few.path).tolist() == [0, 1]
    assert pq.read_table(counted.path / NEAR)["rank"].to_pylist() == [5, 9]
    assert count_leaks(root, arm, [*wanted, beside("more-0123456789", texts[:1])], 0.8)[2].facts["leaked"] == 0
    assert asked == ["later-0123456789", "questions-few-0123456789", "more-0123456789"], "each is searched once"


def test_only_a_setting_that_changes_arms_changes_their_names(tmp_path: Path, pool: Pool) -> None:
    plain = pool.identity()
    assert not {"near", "holdout_near"} & plain.keys()
    assert pool.model_copy(update={"near": "remove"}).identity() == plain | {"near": "remove"}


def test_a_copy_that_several_processes_find_is_found_once(tmp_path: Path, pool: Pool) -> None:
    one, eight = Root(tmp_path / "one"), Root(tmp_path / "eight")
    arms = made(one, pool)
    build_arms(eight, pool, ARMS, workers=8)
    assert {name: record(eight, arm) for name, arm in arms.items()} == {
        name: record(one, arm) for name, arm in arms.items()
    }
