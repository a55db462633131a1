"""Every selection and order against a plain reference that keeps the corpus in memory."""

import itertools
import math
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, build_holdout
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
        sources = [draw(st.sampled_from(["web", "books", "a, b", None])) for _ in texts]
        sources = pa.array(sources, pa.string())
        table = table.append_column("source", sources.dictionary_encode() if draw(st.booleans()) else sources)
        table = table.append_column("id", pa.array([f"{number}-{row}" for row in range(rows)], pa.string()))
        if draw(st.booleans()):
            table = table.set_column(0, "text", table.column("text").cast(pa.large_string()))
        if draw(st.booleans()):
            table = table.select(draw(st.permutations(table.column_names)))
        made.append((table, draw(st.sampled_from([1, 3, 7, 1000]))))
    return made


A, B, C = SCORES
Values = dict[str, float | str | None]
FORMULAS = {
    f"{B} - 0.5 * {C}": lambda v: None if None in (v[B], v[C]) else v[B] - 0.5 * v[C],
    f"abs({A}) / {B}": lambda v: None if None in (v[A], v[B]) or v[B] == 0 else abs(v[A]) / v[B],
    f"max({A}, 1)": lambda v: None if v[A] is None else max(v[A], 1.0),
}
"""Expressions, and the same in Python: None where a value is missing."""
FILTERS = {
    f'{B} >= 1 and source in ("web", "a, b")': lambda v: (
        v[B] is not None and v[B] >= 1 and v["source"] in ("web", "a, b")
    ),
    f"not ({A} > 0) or `source` is None": lambda v: (v[A] is not None and not v[A] > 0) or v["source"] is None,
    "source != 'books'": lambda v: v["source"] is not None and v["source"] != "books",
    f"-1 <= {C} < 2.5": lambda v: v[C] is not None and -1 <= v[C] < 2.5,
    'startswith(source, "b")': lambda v: v["source"] is not None and v["source"].startswith("b"),
}


@st.composite
def arms(draw: st.DrawFn) -> Arm:
    """Selections of all kinds, with and without filters, thresholds and quotas."""
    select = draw(st.sampled_from(["top", "bottom", "random", "temperature", "all"]))
    extents: list[dict[str, object]] = [{}, {}, {"tokens": 100}, {"share_of": "tokens"}]
    extents += [{"match": "source"}, {"match": A}] if select != "all" else []
    extents += [{"min_score": draw(st.sampled_from([-1.0, 0.5, 1.0]))}] if select == "top" else []
    return Arm(
        select=select,
        score=draw(st.sampled_from([None, None, {A: 2.0, B: 1.0, C: 0.0}, *FORMULAS])),
        where=draw(st.sampled_from([None, None, None, *FILTERS])),
        ids=draw(st.sampled_from([None, None, None, "even"])),
        share=draw(st.sampled_from([0.5, 0.9, 1.0])),
        temperature=draw(st.sampled_from([0.3, 2.0])),
        order=draw(st.sampled_from(["best-first", "shuffled", "worst-first"])),
        deduplicate=draw(st.booleans()),
        documents_per_shard=draw(st.sampled_from([16, 33, 1000])),
        population=draw(st.sampled_from([None, (), SCORES[:1], SCORES[1:]])),
        unrated=draw(st.sampled_from(["exclude", "lowest"])),
        seed=draw(st.integers(0, 3)),
        **draw(st.sampled_from(extents)),
    )


def rating(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def draw(arm: Arm, purpose: int, number: int) -> int:
    return int(random_bits(arm.seed, purpose, np.array([number]))[0])


def score(arm: Arm, values: Values) -> float | None:
    """By the columns in the order of their names, as a mean is computed."""
    if isinstance(arm.score, str):
        return FORMULAS[arm.score](values)
    weights = arm.score or dict.fromkeys(SCORES, 1.0)
    used = [(weights[name], values[name]) for name in sorted(weights) if weights[name]]
    if any(value is None for _, value in used):
        return None
    return (0.0 + sum(weight * value for weight, value in used)) / sum(weight for weight, _ in used)


def required(arm: Arm) -> tuple[str, ...]:
    """The columns in which a document must have a rating."""
    if arm.population is not None:
        return arm.population
    if arm.unrated == "lowest":
        return ()
    if isinstance(arm.score, str):
        return tuple(name for name in SCORES if name in arm.score)
    return tuple(name for name, weight in (arm.score or dict.fromkeys(SCORES, 1.0)).items() if weight)


def divided(count: int, groups: list[object], order: list[object]) -> dict[object, int]:
    """`count` by largest remainders of exact fractions; of equal ones, the first in `order` gets one more."""
    exact = {group: Fraction(count * groups.count(group), len(groups)) for group in order}
    quota = {group: math.floor(part) for group, part in exact.items()}
    by_remainder = sorted(order, key=lambda group: (quota[group] - exact[group], order.index(group)))
    for group in by_remainder[: count - sum(quota.values())]:
        quota[group] += 1
    return quota


def reference(tables: list[pa.Table], arm: Arm, held: set[tuple[int, int]], held_texts: set[str]) -> list[str]:
    """The arm's texts by sorting Python lists: documents are (number, score, tokens, text, group), numbered through the pool.

    Empty where there are too few documents that it may take.
    """
    documents, groups, order = [], [], []
    number = 0
    for file, table in enumerate(tables):
        for row, found in enumerate(table.drop_columns(["embedding"]).to_pylist()):
            values: Values = {name: rating(found[name]) for name in SCORES} | {"source": found["source"]}
            group = values.get(arm.match)
            order += [group] if group not in order else []
            if (file, row) not in held and all(values[name] is not None for name in required(arm)):
                groups.append(group)
                listed = arm.ids is None or row % 2 == 0
                if listed and (arm.where is None or FILTERS[arm.where](values)):
                    known = score(arm, values)
                    documents.append(
                        (number, -math.inf if known is None else known, found["token_count"], found["text"], group)
                    )
            number += 1
    order = [*sorted((g for g in order if g is not None), key=order.index if arm.match == "source" else None), None]
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
    if arm.min_score is not None:
        count = sum(document[1] >= arm.min_score for document in ranked)
    elif wanted is not None:
        totals = list(itertools.accumulate(document[2] for document in ranked))
        count = sum(total < wanted for total in totals) + 1
    elif arm.select == "all":
        count = len(ranked)
    else:
        count = max(1, int(arm.share * population + 0.5))
    if count > len(ranked) or not population:
        return []
    chosen = ranked[:count]
    if arm.match:
        chosen = []
        for group, quota in divided(count, groups, order).items():
            within = [document for document in ranked if document[4] == group]
            if quota > len(within):
                return []
            chosen += within[:quota]
    if arm.order == "best-first":
        chosen.sort(key=lambda d: (-d[1], draw(arm, TIES, d[0])))
    elif arm.order == "worst-first":
        chosen.sort(key=lambda d: (d[1], draw(arm, TIES, d[0])))
    else:
        chosen.sort(key=lambda d: draw(arm, ORDER, d[0]))
    texts = [text for *_, text, _ in chosen if text and text not in held_texts]
    return list(dict.fromkeys(texts)) if arm.deduplicate else texts


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(made=files(), arms=st.lists(arms(), min_size=1, max_size=3), workers=st.sampled_from([1, 3]))
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
        lines = [f"{f}-{row}\n" for f, table in enumerate(tables) for row in range(0, len(table), 2)]
        Path(folder, "even.txt").write_text("".join(lines))
        even = {"even": f"{folder}/even.txt", None: None}
        arms = [arm.model_copy(update={"name": f"arm{i}"}) for i, arm in enumerate(arms)]
        expected = [reference(tables, arm, places, set(texts)) for arm in arms]
        arms = [arm.model_copy(update={"ids": even[arm.ids]}) for arm in arms]
        for arm, want in zip(arms, expected, strict=True):
            if not want:
                with pytest.raises(
                    InputError,
                    match=r"lower its share|ask for fewer|raise its share|are needed|loosen it|lower min_score|name others",
                ):
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
