"""A Parquet file from outside is hostile: whatever its bytes say, the answer is an arm or one sentence."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus.pool.survey import survey
from tasks.corpus.prepare import build_arms
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import rated_table

ROWS = 64


def healthy(compression: str) -> bytes:
    texts = [f"document {row} " + "word " * (row % 7 + 1) for row in range(ROWS)]
    out = io.BytesIO()
    table = rated_table(texts, [[float(row % 5)] * 3 for row in range(ROWS)])
    pq.write_table(table, out, row_group_size=16, compression=compression)
    return out.getvalue()


FILES = {name: healthy(name) for name in ("none", "snappy", "zstd")}


@dataclass(frozen=True)
class Damage:
    """What was done to a healthy file: bytes overwritten, in its footer or anywhere behind its first four, then cut."""

    file: str
    in_footer: bool
    changes: tuple[tuple[int, int], ...]
    cut: tuple[int, int]

    def apply(self) -> bytes:
        data = bytearray(FILES[self.file])
        footer = int.from_bytes(data[-8:-4], "little") + 8
        room = footer if self.in_footer else len(data) - 4
        for place, value in self.changes:
            data[-1 - place % room] = value
        start, length = self.cut
        data[start % len(data) : start % len(data) + length] = b""
        return bytes(data)


PLACES = st.integers(0, 1 << 20)
DAMAGE = st.builds(
    Damage,
    st.sampled_from(sorted(FILES)),
    st.booleans(),
    st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=6).map(tuple),
    st.tuples(PLACES, st.sampled_from((0, 0, 0, 1, 100, 1 << 20))),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_any_bytes_give_an_arm_or_one_sentence(folder: Path, damage: Damage):
    shutil.rmtree(folder / "root", ignore_errors=True)
    (folder / "raw").mkdir(exist_ok=True)
    (folder / "raw" / "bad.parquet").write_bytes(damage.apply())
    pool = Pool(source=(folder / "raw").as_uri(), holdout_documents=8, holdout_fraction=0.2)
    for attempt in (
        lambda: build_arms(Root(folder / "root"), pool, [Arm(select="all")], workers=1)[0].facts["documents"],
        lambda: survey(pool.source, pool=pool)["documents"],
    ):
        try:
            assert 0 < attempt() <= ROWS
        except InputError as error:
            assert "\n" not in str(error)
            assert "bad.parquet" in str(error) or "raw" in str(error)
