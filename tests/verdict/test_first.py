"""A first experiment: as large as data and machine allow, and no larger."""

import pytest

from tasks.errors import InputError
from tasks.spec import Pool
from tasks.verdict.first import CPU, GPU, SHARE, first_experiment

POOL = Pool(source="az://raw/mine")


def test_too_little_text_is_refused():
    with pytest.raises(InputError, match=r"az://raw/mine has about 60,000 bytes of text, .*: take more text"):
        first_experiment(POOL, "body", ["clarity"], 60, 60_000, True)


@pytest.mark.parametrize("text_bytes", [3e6, 4e8, 2e11])
@pytest.mark.parametrize(("gpu", "size"), [(True, GPU), (False, CPU)])
def test_an_arm_holds_the_budget_and_a_budget_makes_steps(text_bytes, gpu, size):

    form = first_experiment(POOL, "body", ["clarity", "depth"], text_bytes / 1_000, text_bytes, gpu)
    train, data = form.train, form.data
    assert (data.text_column, data.score) == ("body", {"clarity": 1.0, "depth": 1.0})
    assert train.tokens <= size.tokens
    assert train.tokens * 4.8 <= (1 - data.holdout_fraction) * SHARE * text_bytes, (
        "4.8 bytes a token: a vocabulary of 32,768"
    )
    steps = train.tokens // train.batch_tokens
    assert steps >= 100 or train.batch_tokens == train.sequence_length
    assert train.precision == ("bf16" if gpu else "fp32")
    assert form.spec(), "nothing in it is refused"


def test_small_pools_hold_out_a_larger_part_and_large_ones_the_usual():
    fractions = [
        first_experiment(POOL, "text", ["q"], documents, 1e8, True).data.holdout_fraction
        for documents in (2_000, 10_000, 10**6)
    ]
    assert fractions == [0.1, 0.05, POOL.holdout_fraction]


@pytest.mark.parametrize("documents", [2_000, 10_000, 10**7])
@pytest.mark.parametrize("gpu", [True, False])
def test_a_run_is_scored_in_less_time_than_it_trains(documents, gpu):
    form = first_experiment(POOL, "text", ["q"], documents, 8_000 * documents, gpu)
    held = min(form.data.holdout_documents, int(form.data.holdout_fraction * documents))
    assert 100 <= held <= 20_000
    assert held == 100 or held * 8_000 / 3 <= 2 * form.train.tokens, (
        "3 bytes a token, a third of the cost of one that is trained"
    )
