"""Near copies in one arm win the verdict on all documents and lose it on the clean ones: by models that were really trained.

python -m pytest tests/flows/test_leaks_trained.py -m slow
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.comparison import Hands, run_comparison
from flows.sequence import Steps
from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonSpec
from tests.corpus.near.test_passages import edited

HELD, LEAKED = 128, 88
WORDS = 120


def text(lexicon: int, seed: int) -> str:
    """A document of words from a lexicon of 30, which documents on the same subject share."""
    syllables = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
    known = ["".join(syllables[i] for i in word) for word in np.random.default_rng(lexicon).integers(60, size=(30, 3))]
    return " ".join(known[i] for i in np.random.default_rng(seed).integers(30, size=WORDS))


def write(folder: Path, texts: list[str]) -> str:
    folder.mkdir()
    order = np.random.default_rng(0).permutation(len(texts))
    pq.write_table(pa.table({"text": [texts[i] for i in order]}), folder / "a.parquet", row_group_size=64)
    return folder.as_uri()


@pytest.mark.slow
def test_planted_near_copies_flip_the_verdict_on_all_documents_and_not_on_clean_ones(tmp_path: Path) -> None:
    """Two thirds of the holdout are on subjects that only `leaky` knows, from edited copies; the others are on what `fair` reads more of."""
    leaked = [text(100 + number, number) for number in range(LEAKED)]
    clean = [text(number % 4, 1_000 + number) for number in range(HELD - LEAKED)]
    copies = [edited(each, 0.1, copy) for copy in range(6) for each in leaked]
    common = [text(number % 4, 10_000 + number) for number in range(1_000)]
    sources = {
        "leaky": write(tmp_path / "leaky", [*copies, *common[:60]]),
        "fair": write(tmp_path / "fair", common[-len(copies) - 60 :]),
    }
    pool = Pool(
        sources=sources,
        holdout=write(tmp_path / "held", [*leaked, *clean]),
        holdout_documents=HELD,
        format="unrated",
        token_count_column=None,
        vocab_size=512,
    )
    arms = [Arm(name=name, select="subset", subset=name, order="shuffled", population=()) for name in sources]
    training = Training(
        depth=2, sequence_length=64, batch_tokens=1_024, tokens=60_000, precision="fp32", wandb="disabled"
    )
    spec = ComparisonSpec("leaks", pool, arms, (1, 2), training, redraw=("init", "order"))
    root = Root(tmp_path / "root")
    (pair,) = run_comparison(root, spec, Hands(root, Steps())).verdict.comparisons
    print(pair.sentence)
    assert pair.better == "leaky" and pair.clean is not None
    assert pair.clean.left_out >= LEAKED - 2 and pair.clean.excludes_zero and pair.clean.difference > 0
