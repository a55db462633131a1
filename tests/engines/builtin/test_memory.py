"""The memory estimate, against what was measured and in how it grows."""

from tasks.engines.builtin.memory import memory_bytes
from tasks.records.scaling import ModelShape

GIB = 2**30


def test_above_what_was_measured_but_not_by_much():
    """d12, bf16, 16 rows of 2,048 on one H100: 11.6 GiB, on each of two with half the optimizer 11.0 GiB."""
    one, two = (memory_bytes(ModelShape.of_depth(12), "bf16", 16, world) / GIB for world in (1, 2))
    assert 11.6 < one < 1.4 * 11.6
    assert 11.0 < two < one


def test_grows_with_rows_and_without_fused_kernels():
    config = ModelShape.of_depth(20)
    assert memory_bytes(config, "bf16", 2, 1) > memory_bytes(config, "bf16", 1, 1)
    assert memory_bytes(config, "bf16", 8, 1, fused=False) > 2 * memory_bytes(config, "bf16", 8, 1)


def test_the_usual_run_fits_one_h100():
    """d20 with the micro-batch that upstream uses there."""
    assert memory_bytes(ModelShape.of_depth(20), "bf16", 32, 1) < 74 * GIB
