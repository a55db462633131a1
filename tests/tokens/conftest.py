"""A small pool and arm as the corpus room leaves them on disk, made through Root.build."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.store.root import Root
from tasks.tokens.encode import DIFFICULT
from tasks.tokens.tokenizer import load_tokenizer
from tasks.tokens.train import train_tokenizer

POOL, ARM = "pool-0123456789", "arm-0123456789"
SENTENCE = (
    "the quick brown fox jumps over lazy dogs while 12 engineers count 2026 tokens in 3.14 seconds and 7 of them don't "
    "believe that Größe, naïve café, Москва or 東京 fit into one vocabulary; however (as ever) 1½ and ٣٤ do!\n"
)
WORDS = SENTENCE.split(" ")


def make_documents(count: int, seed: int, longest: int = 400) -> list[str]:
    """Texts of 0 to `longest` words, most of them short, with numbers and characters beyond ASCII."""
    dice = random.Random(seed)
    lengths = [int(dice.random() ** 3 * longest) for _ in range(count)]
    return [" ".join(dice.choices(WORDS, k=length)) + str(dice.randrange(10**6)) * (length % 3) for length in lengths]


def write_text(root: Root, arm: str, shards: list[list[str]], row_group: int = 200) -> None:
    """An arm's text artifact: the given training shards and a holdout shard after them."""

    def make(work):
        for number, texts in enumerate([*shards, ["held out"] * 8]):
            name = f"shard_{number:05d}.parquet"
            table = pa.table({"text": pa.array(texts, pa.large_string())})
            pq.write_table(table, work.temporary(name), compression="zstd", row_group_size=row_group)
            work.finish(name, rows=len(texts))
        count = sum(map(len, shards))
        pq.write_table(pa.table({"score": np.linspace(4.0, 1.0, count)}), work.temporary("documents.parquet"))
        work.finish("documents.parquet", rows=count)

    root.build(f"arms/{arm}/text", make, spec={"shards": [len(s) for s in shards]})


def write_pool(root: Root, pool: str, sample: list[str], holdout: list[str]) -> None:
    """A pool's sample and holdout artifacts."""

    def make_sample(work):
        pq.write_table(pa.table({"text": sample}), work.temporary("sample.parquet"), row_group_size=100)
        work.finish("sample.parquet", rows=len(sample))
        work.facts["documents"] = len(sample)

    def make_holdout(work):
        n = len(holdout)
        columns = {
            "document": pa.array(range(n), pa.int64()),
            "blob": ["a.parquet"] * n,
            "row": pa.array(range(n), pa.int64()),
            "row_group": pa.array([0] * n, pa.int32()),
            "cluster": pa.array([i // 10 for i in range(n)], pa.int32()),
            "bytes": pa.array([len(text.encode()) for text in holdout], pa.int64()),
            "source": ["dump"] * n,
            "text": pa.array(holdout, pa.large_string()),
        }
        pq.write_table(pa.table(columns), work.temporary("documents.parquet"))
        work.finish("documents.parquet", rows=n)

    root.build(f"pools/{pool}/sample", make_sample, spec={"seed": 1})
    root.build(f"pools/{pool}/holdout", make_holdout, spec={"seed": 1})


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory):
    """A root with a pool and its tokenizer of 480 tokens; read only."""
    folder = tmp_path_factory.mktemp("pool")
    root = Root(folder)
    write_pool(root, POOL, make_documents(600, seed=1), [*make_documents(700, seed=2), *DIFFICULT])
    train_tokenizer(root, POOL, vocab_size=480)
    return folder


@pytest.fixture(scope="session")
def tokenizer(pool_folder):
    return load_tokenizer(pool_folder / "pools" / POOL / "tokenizer")


@pytest.fixture
def root(pool_folder, tmp_path):
    """A root of its own for one test, with the pool and its tokenizer in it."""
    (tmp_path / "root" / "pools").mkdir(parents=True)
    (tmp_path / "root" / "pools" / POOL).symlink_to(pool_folder / "pools" / POOL)
    return Root(tmp_path / "root")
