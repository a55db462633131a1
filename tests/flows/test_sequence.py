"""The sequence of a preparation without a server."""

import shutil
from pathlib import Path

import pytest

from flows.sequence import Prepared, Steps, prepare_arm, prepare_arms
from tasks.corpus.arm.plan import ArmPlan
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root

LENGTH = 64
TRAINING = Training(sequence_length=LENGTH)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def pool(sample: Path) -> Pool:
    sizes = {"holdout_documents": 40, "holdout_fraction": 0.1, "tokenizer_characters": 200_000}
    return Pool(source=str(sample), vocab_size=512, **sizes)


@pytest.fixture(scope="module")
def planned() -> list[tuple[ArmPlan, bool, bool]]:
    """Each plan, and whether the holdout and the arm's text were there when it was told."""
    return []


@pytest.fixture(scope="module")
def prepared(root: Root, pool: Pool, planned: list) -> Prepared:
    def tell(plan: ArmPlan) -> None:
        found = [root.find(name) for name in (PoolFolder(plan.pool_id).holdout, ArmFolder(plan.arm_id).text)]
        planned.append((plan, *(manifest is not None for manifest in found)))

    return prepare_arm(root, pool, Arm(), TRAINING, Steps(), tell)


def test_the_plan_is_told_before_any_text_of_the_arm_is_read(prepared, planned):
    ((plan, holdout, text),) = planned
    assert (plan.pool_id, plan.arm_id) == (prepared.pool_id, prepared.arm_id)
    assert (holdout, text) == (True, False)


def test_everything_that_a_training_reads_is_there(prepared, root):
    assert prepared.packed.name == ArmFolder(prepared.arm_id).packed(LENGTH, "split")
    assert all(root.find(name) for name in PoolFolder(prepared.pool_id).parts)
    assert prepared.facts["sequence_length"] == LENGTH and prepared.facts["shards"] >= 1


def test_arms_prepared_together_share_the_steps_and_are_what_each_is_alone(prepared, root, pool, tmp_path):
    drawn = [Arm(name="rand", select="random", order="shuffled", seed=seed) for seed in (1, 2)]
    titles: list[str] = []

    class Noted(Steps):
        def run(self, title, work):
            titles.append(title)
            return super().run(title, work)

        def spread(self, title, work):
            titles.append(title)
            return super().spread(title, work)

    shutil.copytree(root.path(f"pools/{prepared.pool_id}"), tmp_path / "pools" / prepared.pool_id)
    alone = [prepare_arm(root, pool, arm, TRAINING, Steps()) for arm in drawn]
    together = prepare_arms(Root(tmp_path), pool, [Arm(), *drawn], TRAINING, Noted())
    assert [one.arm_id for one in together] == [one.arm_id for one in (prepared, *alone)]
    for one, other in zip(together, (prepared, *alone), strict=True):
        made, expected = ((each.text.manifest, each.packed.manifest, each.near) for each in (one, other))
        for found, same in zip(made, expected, strict=True):
            assert (found.name, found.fingerprint, found.content) == (same.name, same.fingerprint, same.content)
            assert found.facts == same.facts
    assert [title for title in titles if "top16" in title or "rand" in title] == [
        "Checksums of top16, rand",
        "Plan of top16, rand",
        "Text of top16, rand",
        "Packed rows of top16, rand",
    ]


def test_a_damaged_shard_is_made_again_and_nothing_else(prepared, root, pool):
    shard = prepared.text.path / "shard_00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = prepare_arm(root, pool, Arm(), TRAINING, Steps())
    assert shard.read_bytes() == whole
    assert not again.text.reused and again.packed.reused
    assert again.packed.manifest == prepared.packed.manifest
