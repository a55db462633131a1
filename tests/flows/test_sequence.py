"""The sequence of a preparation without a server."""

from pathlib import Path

import pytest

from flows.sequence import Prepared, Steps, prepare_arm
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


def test_a_damaged_shard_is_made_again_and_nothing_else(prepared, root, pool):
    shard = prepared.text.path / "shard_00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = prepare_arm(root, pool, Arm(), TRAINING, Steps())
    assert shard.read_bytes() == whole
    assert not again.text.reused and again.packed.reused
    assert again.packed.manifest == prepared.packed.manifest
