"""Arms of unequal size on one budget: the larger one trains on a fair sample of itself."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, build_sample
from tasks.engines.builtin.rows import PackedRows
from tasks.records.packed import choose_rows
from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root
from tasks.tokens.pack import pack_arm
from tasks.tokens.tokenizer import load_tokenizer
from tasks.tokens.train import train_tokenizer
from tasks.verdict.planning import equal_budget
from tests.corpus.corpora import rated_table

LENGTH, DOCUMENTS = 128, 6_000  # many against the 1,000 that the packer has in hand
ARMS = [
    Arm(name="top16", select="top", share=0.165, documents_per_shard=400),
    Arm(name="all", select="all", order="best-first", documents_per_shard=400),
]


def test_a_budget_below_an_arm_takes_a_fair_sample_of_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = random.permutation(DOCUMENTS) * 5 / DOCUMENTS
    texts = [f"rated {score:.3f} " + " ".join(map(str, random.integers(0, 99, 12))) for score in scores]
    (tmp_path / "raw").mkdir()
    pq.write_table(rated_table(texts, [[score] * 3 for score in scores]), tmp_path / "raw/a.parquet")
    root, source = Root(tmp_path / "root"), (tmp_path / "raw").as_uri()
    pool = open_pool(root, Pool(source=source, holdout_documents=20, vocab_size=300, tokenizer_characters=100_000))
    made = build_arms(root, pool, ARMS, workers=1)
    build_sample(root, pool, workers=1)
    tokenizer = load_tokenizer(train_tokenizer(root, pool.pool_id, 300).path)
    packed = {
        arm.name: pack_arm(root, text.name.split("/")[1], pool.pool_id, LENGTH, workers=1)
        for arm, text in zip(ARMS, made, strict=True)
    }
    budget = equal_budget({name: rows.facts for name, rows in packed.items()}, None)["all"]
    rows = packed["all"].facts["rows"]

    def rated(count: int) -> np.ndarray:
        read = PackedRows.of(packed["all"], choose_rows(rows, count, Training(), seed=1)).take(0, count)
        found = (re.findall(r"rated (\d\.\d{3})", tokenizer.decode(row.tolist())) for row in read)
        return np.array([float(score) for row in found for score in row])

    trained, whole = rated(budget // LENGTH), rated(rows)
    assert abs(trained.mean() - whole.mean()) < 4 * whole.std() / len(trained) ** 0.5
