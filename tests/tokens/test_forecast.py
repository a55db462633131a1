"""Before an arm's text is read its tokens are a range, and the packed count lies in it."""

import pytest

from flows.sequence import Steps, prepare_arm
from tasks.records.cost import estimate_cost
from tasks.records.packed import PackedPlan
from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root
from tasks.tokens.forecast import forecast_tokens


@pytest.mark.parametrize("column", ["token_count", None])
def test_the_planned_range_holds_the_packed_count(sample, tmp_path, column):
    root = Root(tmp_path)
    pool = Pool(
        source=sample.as_uri(),
        token_count_column=column,
        holdout_documents=60,
        vocab_size=1_024,
        tokenizer_characters=500_000,
    )
    arms = [Arm(name="top", share=0.2), Arm(name="low", select="bottom", share=0.2), Arm(name="all", select="all")]
    widths = []
    for arm, packing in [(arm, packing) for arm in arms for packing in ("split", "crop")]:
        training = Training(sequence_length=128, packing=packing, batch_tokens=1_024)
        ranges = []

        def planned(plan, arm=arm, training=training, ranges=ranges):
            size = {"documents": plan.documents, "size": plan.text_bytes, "counted": plan.tokens}
            ranges.append(forecast_tokens(root, plan.pool_id, arm, training, pool.vocab_size, **size))

        made = prepare_arm(root, pool, arm, training, Steps(), planned)
        ((low, high),) = ranges
        packed = made.packed.facts["tokens_per_epoch"]
        assert low <= packed <= high, (arm.name, packing)
        widths.append(high / low)
        exact = PackedPlan.make(root, made.arm_id, training, seed=1, vocab_size=pool.vocab_size)
        assert exact.plan.iterations == packed // 1_024 == estimate_cost(training, packed, vocab_size=1_024).steps
        assert estimate_cost(training, low).steps <= exact.plan.iterations <= estimate_cost(training, high).steps
    assert widths[0] < (4 if column else 20) and widths[4] < 2, (
        "narrower with a column, and once the pool has a tokenizer"
    )
