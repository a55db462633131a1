"""A small tokenizer, small texts and, where one is given, a checkout of nanochat with an environment that runs it.

NANOCHAT_CHECKOUT      today's upstream (see tasks/engines/nanochat/contract.py for commits)
NANOCHAT_CHECKOUT_OLD  one from before 2026-02-18
NANOCHAT_PYTHON        the interpreter of an environment with nanochat's dependencies (default: this one)
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.engines.nanochat import contract
from tasks.records.layout import PoolFolder
from tasks.records.scores import write_strata
from tasks.spec import Pool
from tasks.store.artifact import Work
from tasks.store.root import Root
from tasks.tokens.evaluation import encode_holdout
from tasks.tokens.pack import pack_arm
from tasks.tokens.train import train_tokenizer
from tests.tokens.conftest import write_pool

VOCAB = 512
POOL, ARM = "pool-0123456789", "arm-0123456789"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Paragraphs of real prose and code: docstrings of the standard library."""
    source = Path(argparse.__file__).parent
    paragraphs = []
    for name in (
        "argparse",
        "asyncio/events",
        "asyncio/tasks",
        "decimal",
        "random",
        "statistics",
        "textwrap",
        "typing",
    ):
        paragraphs += (source / f"{name}.py").read_text().split("\n\n")
    return [textwrap.dedent(paragraph) for paragraph in paragraphs if len(paragraph) > 80]


def write_text(root: Root, name: str, texts: list[str], files: int, row_group: int) -> None:
    """An arm's text artifact: `files` training shards, then the holdout's."""
    each = len(texts) // files

    def make(work: Work) -> None:
        for number in range(files):
            part = pa.table({"text": pa.array(texts[number * each : (number + 1) * each], pa.large_string())})
            pq.write_table(part, work.temporary(f"shard_{number:05d}.parquet"), row_group_size=row_group)
            work.finish(f"shard_{number:05d}.parquet", rows=part.num_rows)
        held_out = pq.read_table(root.path(f"pools/{POOL}/holdout/documents.parquet"), columns=["text"])
        pq.write_table(held_out, work.temporary(f"shard_{files:05d}.parquet"), row_group_size=-(-len(held_out) // 8))
        work.finish(f"shard_{files:05d}.parquet")
        pq.write_table(pa.table({"score": [1.0] * len(texts)}), work.temporary("documents.parquet"))
        work.finish("documents.parquet", rows=len(texts))

    inputs = {"pool": POOL, "holdout": root.open(f"pools/{POOL}/holdout").manifest}
    root.build(name, make, spec={"files": files, "row_group": row_group}, inputs=inputs)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A root with a pool, and an arm in 4 shards of one row group each, packed for 64 tokens; read only."""
    folder = tmp_path_factory.mktemp("prepared")
    root = Root(folder)
    write_pool(root, POOL, texts, texts[::25])
    held, rated = root.open(PoolFolder(POOL).holdout), np.arange(len(texts[::25])) % 7.0
    strata = PoolFolder(POOL).strata(Pool().score)
    root.build(strata, lambda work: write_strata(work, rated), spec={}, inputs={"holdout": held.manifest})
    train_tokenizer(root, POOL, VOCAB)
    encode_holdout(root, POOL)
    write_text(root, f"arms/{ARM}/text", texts, files=4, row_group=10_000)
    pack_arm(root, ARM, POOL, 64, "crop", workers=1)
    return folder


@pytest.fixture(scope="session")
def pool_id() -> str:
    return POOL


@pytest.fixture(scope="session")
def arm_id() -> str:
    return ARM


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Root:
    """A root of its own for one test, with the pool and the arm in it."""
    folder = tmp_path / "root"
    for name in (f"pools/{POOL}", f"arms/{ARM}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(prepared / name)
    return Root(folder)


@pytest.fixture(scope="session")
def tokenizer(prepared: Path) -> Path:
    """The folder of a pool's tokenizer artifact: tokenizer.json and token_bytes.npy."""
    return prepared / "pools" / POOL / "tokenizer"


def checkout(variable: str) -> Path:
    """The checkout that an environment variable names; the test skips with a reason where there is none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no checkout of nanochat")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def upstream() -> Path:
    return checkout("NANOCHAT_CHECKOUT")


@pytest.fixture(scope="session")
def old_upstream() -> Path:
    return checkout("NANOCHAT_CHECKOUT_OLD")


@pytest.fixture(scope="session")
def nanochat_python() -> str:
    return os.environ.get("NANOCHAT_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def run_upstream(nanochat_python: str) -> Callable[..., dict]:
    """Run a program inside nanochat's own environment and checkout; its last line of output is JSON."""

    def run(source: Path, base: Path, program: str, *arguments: str, seconds: float = 300) -> dict:
        environment = {**os.environ, contract.BASE_VARIABLE: str(base), "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        command = [nanochat_python, "-c", textwrap.dedent(program), *arguments]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
