"""A first experiment on data that nobody trained on yet: the best-rated fifth against a random one, as large as data and machine allow."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import InputError
from tasks.spec import Arm, Pool, Training
from tasks.store.root import DEFAULT_ROOT
from tasks.verdict.form import REPLICATES, ComparisonForm

SHARE = 0.2
BYTES_PER_TOKEN = 3.0
"""English in a vocabulary of 2,048. Tokens of larger vocabularies are longer, so an arm has at most a third fewer tokens than this says."""
KEPT = 0.55
"""The part of an arm's tokens that is safe to count on, after holdout, longer tokens and packing."""
STEPS = 100
HELD_OUT = 500
"""Documents that the holdout should have."""
SCORED = 2
"""Tokens of the holdout for each token of the budget, at most: they cost a third each, so a run is scored in less time than it trains."""
FEW = 100
"""Documents that the holdout has even so."""
FEWEST = 80
"""Documents a tenth of which makes a holdout, which needs 8."""
VOCABULARIES = {300_000_000: 32_768, 20_000_000: 8_192, 0: 2_048}
"""Tokens of a vocabulary, by the bytes of text from which it is worth training."""


@dataclass(frozen=True)
class Size:
    """A run that takes minutes."""

    depth: int
    sequence_length: int
    tokens: int


GPU, CPU = Size(6, 1_024, 20_000_000), Size(2, 256, 400_000)


def first_experiment(
    pool: Pool, text_column: str, score: Sequence[str], documents: float, text_bytes: float, gpu: bool
) -> ComparisonForm:
    """The form of an experiment on the pool's source. `text_column`, `score`: the columns with texts and ratings; `documents`,
    `text_bytes`: how much there is.

    Raises InputError when an arm would not fill 10 steps of one row each, or a tenth of the documents make no holdout.
    """
    size = GPU if gpu else CPU
    tokens = min(size.tokens, _two_digits(SHARE * KEPT * text_bytes / BYTES_PER_TOKEN))
    most = max(FEW, int(SCORED * tokens * BYTES_PER_TOKEN * documents / max(1.0, text_bytes)))
    held = min(0.1, min(HELD_OUT, most) / max(1, documents))
    usual = min(pool.holdout_documents, pool.holdout_fraction * documents)
    pool = pool.model_copy(
        update={
            "text_column": text_column,
            "score": dict.fromkeys(score, 1.0),
            "vocab_size": next(count for least, count in VOCABULARIES.items() if text_bytes >= least),
        }
        | ({"holdout_fraction": round(held, 3)} if held > pool.holdout_fraction else {})
        | ({"holdout_documents": _two_digits(most)} if usual > most else {})
    )
    if tokens < 10 * size.sequence_length:
        raise InputError(
            f"{pool.address} has about {text_bytes:,.0f} bytes of text, and a fifth of it is too little to train on: take more text."
        )
    if documents < FEWEST:
        raise InputError(
            f"{pool.address} has {documents:,.0f} documents, and a tenth of them is too small a holdout: take {FEWEST} or more."
        )
    rows = 1
    while 2 * rows * size.sequence_length * STEPS <= tokens and rows < 128:
        rows *= 2
    return ComparisonForm(
        name="best-vs-random",
        arms=[
            Arm(name="best", select="top", share=SHARE, order="shuffled"),
            Arm(name="random", select="random", share=SHARE, order="shuffled"),
        ],
        data=pool,
        train=Training(
            recipe="quiet",
            depth=size.depth,
            sequence_length=size.sequence_length,
            batch_tokens=rows * size.sequence_length,
            tokens=tokens,
            precision="bf16" if gpu else "fp32",
        ),
        replicates=REPLICATES,
        root=DEFAULT_ROOT,
    )


def _two_digits(number: float) -> int:
    """Rounded down to two digits."""
    unit = 10 ** max(0, len(str(int(number))) - 2)
    return int(int(number) // unit * unit)
