"""The memory estimate, against what was measured and in how it grows."""

import pytest

from tasks.engines.builtin.memory import graph_bytes, memory_bytes
from tasks.records.scaling import ModelShape

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("depth", "precision", "rows", "measured"),
    [
        (6, "bf16", 4, 1_851),
        (6, "bf16", 16, 3_537),
        (6, "bf16", 64, 8_245),
        (12, "bf16", 4, 5_417),
        (12, "bf16", 32, 16_483),
        (20, "bf16", 2, 13_034),
        (20, "bf16", 8, 19_983),
        (20, "bf16", 32, 44_703),
        (12, "fp8", 4, 6_100),
        (12, "fp8", 32, 18_915),
        (20, "fp8", 2, 14_328),
        (20, "fp8", 32, 50_821),
    ],
)
def test_is_what_was_measured(depth, precision, rows, measured):
    """MiB that PyTorch had allocated at the peak on one H200, rows of 2,048, vocabulary 32,768."""
    assert memory_bytes(ModelShape.of_depth(depth), precision, rows, 1) / MIB == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("depth", "rows", "allocated", "reserved"), [(6, 64, 8_245, 11_786), (12, 32, 16_483, 20_276)])
def test_what_graphs_keep_for_themselves_is_what_was_measured(depth, rows, allocated, reserved, monkeypatch):
    """MiB reserved after replayed steps and an evaluation's micro-batch, likewise; both are beyond what is replayed by now."""
    monkeypatch.setattr("tasks.engines.builtin.graphs.WORK", 2**26)
    assert graph_bytes(ModelShape.of_depth(depth), rows) / MIB == pytest.approx(reserved - allocated, rel=0.06)


def test_where_the_optimizer_alone_is_replayed_it_keeps_its_own_and_else_nothing_is_kept():
    shallow, deep = ModelShape.of_depth(12), ModelShape.of_depth(20)
    assert graph_bytes(shallow, 32) == graph_bytes(shallow, 64) == 5 * 2 * 4 * 12 * 768**2
    assert graph_bytes(shallow, 8) > graph_bytes(shallow, 32)
    assert graph_bytes(deep, 1) == 0


def test_grows_with_rows_and_without_fused_kernels_and_shrinks_with_ranks():
    config = ModelShape.of_depth(20)
    assert memory_bytes(config, "bf16", 2, 1) > memory_bytes(config, "bf16", 1, 1)
    assert memory_bytes(config, "bf16", 8, 1, fused=False) > 2 * memory_bytes(config, "bf16", 8, 1)
    assert memory_bytes(config, "bf16", 8, 2) < memory_bytes(config, "bf16", 8, 1)


def test_the_usual_run_fits_one_h100():
    """d20 with the micro-batch that upstream uses there."""
    assert memory_bytes(ModelShape.of_depth(20), "bf16", 32, 1) < 74 * GIB
