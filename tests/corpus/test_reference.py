"""Every selection and order against a plain reference that keeps the corpus in memory."""

import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus.prepare import build_arms, build_holdout, open_pool
from tasks.errors import InputError
from tasks.records.draws import ORDER, SELECT, TIES, gumbel, random_bits
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import SCORES, rated_table, shard_texts

SCORE = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 1.0, 2.5, -1.0, math.nan, math.inf, -math.inf]), st.floats(-5, 5, width=32)
)
TEXT = st.one_of(
    st.sampled_from(["twice", "the same text, longer than eight bytes", "", "x"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.none(),
)


@st.composite
def files(draw: st.DrawFn) -> list[tuple[pa.Table, int]]:
    """Tables with their row group sizes: some empty, some of one row, one large enough for a holdout."""
    made = []
    for number, rows in enumerate(
        [draw(st.integers(40, 70)), *draw(st.lists(st.sampled_from([0, 1, 2, 9, 30]), max_size=4))]
    ):
        texts = [draw(TEXT) if draw(st.booleans()) else f"{number}/{row} unlike all others" for row in range(rows)]
        scores = [[draw(SCORE) for _ in SCORES] for _ in range(rows)]
        table = rated_table(texts, scores, draw(st.sampled_from(["double", "float"])))
        if draw(st.booleans()):
            table = table.set_column(0, "text", table.column("text").cast(pa.large_string()))
        if draw(st.booleans()):
            table = table.select(draw(st.permutations(table.column_names)))
        made.append((table, draw(st.sampled_from([1, 3, 7, 1000]))))
    return made


ARM = st.builds(
    Arm,
    select=st.sampled_from(["top", "bottom", "random", "temperature", "all"]),
    share=st.sampled_from([0.5, 0.9, 1.0]),
    share_of=st.sampled_from(["documents", "tokens"]),
    tokens=st.one_of(st.none(), st.none(), st.just(100)),
    temperature=st.sampled_from([0.3, 2.0]),
    order=st.sampled_from(["best-first", "shuffled", "worst-first"]),
    deduplicate=st.booleans(),
    documents_per_shard=st.sampled_from([16, 33, 1000]),
    population=st.sampled_from([None, (), SCORES[:1], SCORES[1:]]),
    unrated=st.sampled_from(["exclude", "lowest"]),
    seed=st.integers(0, 3),
)


def rating(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def draw(arm: Arm, purpose: int, number: int) -> int:
    return int(random_bits(arm.seed, purpose, np.array([number]))[0])


def reference(tables: list[pa.Table], arm: Arm, held: set[tuple[int, int]], held_texts: set[str]) -> list[str]:
    """The arm's texts by sorting Python lists: documents are (file, row), numbered through the pool.

    Empty where there are too few documents with a score.
    """
    required = arm.population
    if required is None:
        required = SCORES if arm.unrated == "exclude" else ()
    documents = []
    number = 0
    for file, table in enumerate(tables):
        columns = [table.column(name).to_pylist() for name in SCORES]
        for row, text in enumerate(table.column("text").to_pylist()):
            values = {name: rating(column[row]) for name, column in zip(SCORES, columns, strict=True)}
            if (file, row) not in held and all(values[name] is not None for name in required):
                score = -math.inf if None in values.values() else (0.0 + sum(values.values())) / 3.0
                documents.append((number, score, table.column("token_count")[row].as_py(), text))
            number += 1
    population = len(documents)
    wanted = arm.tokens
    if wanted is None and arm.share_of == "tokens" and arm.select != "all":
        wanted = max(1, int(arm.share * sum(document[2] for document in documents) + 0.5))
    if arm.select in ("top", "bottom", "temperature") and arm.unrated == "exclude":
        documents = [document for document in documents if document[1] > -math.inf]
    if arm.select == "top":
        ranked = sorted(documents, key=lambda d: (-d[1], draw(arm, TIES, d[0])))
    elif arm.select == "bottom":
        ranked = sorted(documents, key=lambda d: (d[1], draw(arm, TIES, d[0])))
    elif arm.select == "random":
        ranked = sorted(documents, key=lambda d: draw(arm, SELECT, d[0]))
    elif arm.select == "temperature":
        noisy = {d[0]: -(d[1] / arm.temperature + gumbel(arm.seed, np.array([d[0]]))[0]) for d in documents}
        ranked = sorted(documents, key=lambda d: (noisy[d[0]], draw(arm, TIES, d[0])))
    else:
        ranked = documents
    if wanted is not None:
        totals = list(itertools.accumulate(document[2] for document in ranked))
        count = sum(total < wanted for total in totals) + 1
    elif arm.select == "all":
        count = len(ranked)
    else:
        count = max(1, int(arm.share * population + 0.5))
    if count > len(ranked):
        return []
    chosen = ranked[:count]
    if arm.order == "best-first":
        chosen.sort(key=lambda d: (-d[1], draw(arm, TIES, d[0])))
    elif arm.order == "worst-first":
        chosen.sort(key=lambda d: (d[1], draw(arm, TIES, d[0])))
    else:
        chosen.sort(key=lambda d: draw(arm, ORDER, d[0]))
    texts = [text for *_, text in chosen if text and text not in held_texts]
    return list(dict.fromkeys(texts)) if arm.deduplicate else texts


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(made=files(), arms=st.lists(ARM, min_size=1, max_size=3), workers=st.sampled_from([1, 3]))
def test_arms_equal_the_reference_row_for_row(made: list[tuple[pa.Table, int]], arms: list[Arm], workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        raw.mkdir()
        for number, (table, row_group) in enumerate(made):
            pq.write_table(table, raw / f"{number:02d}.parquet", row_group_size=row_group)
        root = Root(Path(folder, "root"))
        pool = Pool(source=raw.as_uri(), holdout_documents=8, holdout_fraction=0.5, skip_bad_files=True)
        handle = open_pool(root, pool)
        held = pq.read_table(build_holdout(root, handle, workers=workers).path / "documents.parquet")
        places = {
            (int(b.split(".")[0]), r) for b, r in zip(held["blob"].to_pylist(), held["row"].to_pylist(), strict=True)
        }
        assert len(places) == 8
        tables = [table for table, _ in made]
        texts = held.column("text").to_pylist()
        assert texts == [tables[f].column("text")[r].as_py() for f, r in sorted(places)]
        arms = [arm.model_copy(update={"name": f"arm{i}"}) for i, arm in enumerate(arms)]
        expected = [reference(tables, arm, places, set(texts)) for arm in arms]
        for arm, want in zip(arms, expected, strict=True):
            if not want:
                with pytest.raises(InputError, match=r"lower its share|ask for fewer|raise its share|are needed"):
                    build_arms(root, handle, [arm], workers=1)
        arms, expected = zip(
            *[(a, e) for a, e in zip(arms, expected, strict=True) if len(e) >= 8] or [((), ())], strict=True
        )
        if not arms[0]:
            return
        for arm, want, made_arm in zip(arms, expected, build_arms(root, handle, arms, workers=workers), strict=True):
            *shards, last = shard_texts(made_arm.path)
            assert [text for shard in shards for text in shard] == want
            assert last == texts
            assert all(len(shard) == arm.documents_per_shard for shard in shards[:-1])
            listed = pq.read_table(made_arm.path / "documents.parquet")
            assert listed.column("rank").to_pylist() == list(range(len(want)))
            assert made_arm.facts["documents"] == len(want)
            assert made_arm.facts["bytes"] == sum(len(text.encode()) for text in want)
            rows = zip(listed["blob"].to_pylist(), listed["row"].to_pylist(), strict=True)
            assert [tables[int(b[:2])].column("text")[r].as_py() for b, r in rows] == want
