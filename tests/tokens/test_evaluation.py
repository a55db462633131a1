"""The holdout in tokens: every document where its row says, in the holdout's order."""

import numpy as np
import pyarrow.parquet as pq

from tasks.tokens.evaluation import COLUMNS, encode_holdout
from tests.tokens.conftest import POOL


def test_each_document_lies_where_its_row_says(pool_folder, root, tokenizer):
    evaluation = encode_holdout(root, POOL)
    holdout = pq.read_table(root.open(f"pools/{POOL}/holdout").path / "documents.parquet")
    tokens = np.fromfile(evaluation.path / "tokens.bin", "<u2")
    table = pq.read_table(evaluation.path / "documents.parquet")
    assert table.select(COLUMNS).equals(holdout.select(COLUMNS))
    for text, offset, count in zip(
        holdout["text"].to_pylist(), table["offset"].to_pylist(), table["tokens"].to_pylist(), strict=True
    ):
        assert tokens[offset : offset + count].tolist() == tokenizer.encode(text)
    facts = evaluation.facts
    assert facts["documents"] == len(holdout)
    assert facts["tokens"] == len(tokens)
    assert facts["bytes"] == sum(holdout["bytes"].to_pylist()) == tokenizer.token_bytes()[tokens].sum()
    assert facts["bos"] not in tokens
    assert encode_holdout(root, POOL).reused
