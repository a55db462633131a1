"""What is refused before the first step, and with which remedy."""

import pytest
import torch

from tasks.engines.builtin.guards import choose_micro_batch
from tasks.errors import InputError

GPU, CPU = torch.device("cuda"), torch.device("cpu")
GIB = 2**30


def memory(rows):
    """10 GiB of weights and 3 GiB a row."""
    return (10 + 3 * rows) * GIB


def test_the_largest_divisor_that_fits_is_taken():
    assert choose_micro_batch(None, 32, 2048, GPU, memory, 80 * GIB) == 16
    assert choose_micro_batch(None, 32, 2048, GPU, memory, 120 * GIB) == 32
    assert choose_micro_batch(None, 31, 2048, GPU, memory, 80 * GIB) == 1


def test_too_large_a_micro_batch_is_refused_with_a_proposal():
    with pytest.raises(InputError, match=r"micro_batch is 32: .* need about 106.0 GiB.* 80.0 GiB to give: take 16"):
        choose_micro_batch(32, 32, 2048, GPU, memory, 80 * GIB)


def test_a_micro_batch_that_divides_nothing_is_refused_with_a_proposal():
    with pytest.raises(InputError, match=r"micro_batch is 12, which does not divide the 32 rows.* take 8"):
        choose_micro_batch(12, 32, 2048, GPU, memory, 200 * GIB)


def test_a_model_that_does_not_fit_at_all_is_refused():
    with pytest.raises(InputError, match=r"One row of 2,048 tokens needs about 13.0 GiB.* smaller depth"):
        choose_micro_batch(None, 32, 2048, GPU, memory, 12 * GIB)


def test_a_cpu_takes_no_more_than_it_gains_from():
    assert choose_micro_batch(None, 64, 256, CPU, memory, 1000 * GIB) == 16
    assert choose_micro_batch(None, 4, 32_768, CPU, memory, 1000 * GIB) == 1
