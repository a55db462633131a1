"""Small corpora in any shape."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.arm.traits import wanted_columns
from tasks.corpus.pool.column import StoredColumn
from tasks.corpus.pool.scores import scores_of
from tasks.corpus.prepare import build_arms, build_index
from tasks.records.layout import PoolFolder
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool
from tasks.store.root import Root

SCORES = (PEDAGOGICAL, FACTUAL, ENGAGEMENT)


def rated_table(
    texts: Sequence[str | None], scores: Sequence[Sequence[float | None]], dtype: str = "double"
) -> pa.Table:
    """Documents in the production schema: text, tokens, a large embedding, three score columns."""
    rng = np.random.default_rng(len(texts))
    columns = {
        "text": pa.array(texts, pa.string()),
        "token_count": pa.array([len(t or "") // 4 + 1 for t in texts], pa.int64()),
        "embedding": pa.array(list(rng.standard_normal((len(texts), 64), np.float32)), pa.list_(pa.float32())),
    }
    kind = pa.float64() if dtype == "double" else pa.float32()
    columns |= {name: pa.array([row[i] for row in scores], kind) for i, name in enumerate(SCORES)}
    return pa.table(columns)


def write_corpus(folder: Path, files: int = 3, rows: int = 120, row_group: int = 40, seed: int = 0) -> list[pa.Table]:
    """Parquet files of unlike documents with ties and nulls among their scores."""
    rng = np.random.default_rng(seed)
    tables = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        texts = [
            f"document {number}/{row} " + " ".join(map(str, rng.integers(0, 99, int(rng.integers(1, 60)))))
            for row in range(rows)
        ]
        scores = [[None if rng.random() < 0.02 else float(rng.integers(0, 6)) for _ in SCORES] for _ in texts]
        table = rated_table(texts, scores)
        pq.write_table(table, folder / f"part_{number:03d}.parquet", row_group_size=row_group)
        tables.append(table)
    return tables


def rated_texts(count: int, tag: str = "document", score: float | None = None) -> pa.Table:
    """So many documents whose texts begin with the tag, all of one score or rated 0 to 4 in turn."""
    rng = np.random.default_rng(0)
    texts = [f"{tag} {row} " + " ".join(map(str, rng.integers(0, 999, 40))) for row in range(count)]
    return rated_table(texts, [[float(row % 5) if score is None else score] * 3 for row in range(count)])


def prose(count: int, *, seed: int, words: int = 120) -> list[str]:
    """Texts that have no passage in common: made-up words."""
    rng = np.random.default_rng(seed)
    syllables = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
    drawn = rng.integers(len(syllables), size=(count, words, 3))
    return [" ".join("".join(syllables[i] for i in word) for word in text) for text in drawn]


def write_subsets(sample: Path, folder: Path) -> list[str]:
    """Two ready-made subsets of the sample's texts, a folder each, with nothing but a text: the longest half of them, and a random
    half. Returns their names; a quarter of the texts is in both."""
    texts = pa.concat_tables(pq.read_table(path, columns=["text"]) for path in sorted(sample.glob("*.parquet")))
    longest = sorted(set(texts["text"].to_pylist()), key=len, reverse=True)
    half = len(longest) // 2
    subsets = {"top16": longest[:half], "rand16": random.Random(1).sample(longest, half)}
    for name, chosen in subsets.items():
        (folder / name).mkdir()
        mixed = random.Random(2).sample(chosen, half)
        for number in range(2):
            table = pa.table({"text": mixed[number::2]})
            pq.write_table(table, folder / name / f"shard_{number:05d}.parquet", row_group_size=64)
    return list(subsets)


def arm_and_holdout(folder: Path, source: str, **changes: object) -> tuple[list[str], list[str]]:
    """Texts of a new arm of everything, in order, and of the holdout; the root is made in the folder."""
    pool = Pool(**{"source": source, "holdout_documents": 20, "holdout_fraction": 0.2, **changes})
    arm = Arm(name="all", select="all", documents_per_shard=64)
    with tempfile.TemporaryDirectory(dir=folder) as root:
        (made,) = build_arms(Root(root), pool, [arm], workers=1)
        *shards, holdout = shard_texts(made.path)
    return [text for shard in shards for text in shard], holdout


def pool_scores(root: Root, pool: Pool) -> np.ndarray:
    """The pool's score of each document."""
    columns = pool_columns(root, pool)
    return scores_of(columns, pool.score, len(next(iter(columns.values())).values))


def pool_columns(root: Root, pool: Pool) -> dict[str, StoredColumn]:
    """The columns of the pool's score."""
    wanted = wanted_columns(Arm(), pool)
    indexed = build_index(root, pool, wanted)
    folder = PoolFolder(indexed.manifest.inputs["pool"])
    return {each.name: StoredColumn.open(root.open(folder.column(each.name, each.use))) for each in wanted}


def shard_texts(folder: Path) -> list[list[str]]:
    """The texts of an arm's shards, the last of which is the holdout."""
    paths = sorted(folder.glob("shard_*.parquet"))
    return [pq.read_table(path).column("text").to_pylist() for path in paths]
