"""The demo's raw data: schema, sizes, order of ratings, and the same files every time."""

import sysconfig

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.local import sample_data
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL


@pytest.fixture
def small_library(monkeypatch):
    """A standard library that is read in a moment."""
    whole = sysconfig.get_path
    monkeypatch.setattr(sysconfig, "get_path", lambda name: whole(name) + ("/email" if name == "stdlib" else ""))


def test_schema_is_that_of_a_rated_corpus(sample):
    for path in sorted(sample.glob("*.parquet")):
        schema = pq.read_schema(path)
        assert schema.field("embedding").type == pa.list_(pa.float32())
        assert schema.field("token_count").type == pa.int64()
        assert {"text", "id", "score", PEDAGOGICAL, FACTUAL, ENGAGEMENT} <= set(schema.names)
        assert sum(name.endswith("_average") for name in schema.names) == 6


def test_files_have_several_row_groups_and_distinct_texts(sample):
    files = sorted(sample.glob("*.parquet"))
    assert len(files) == sample_data.FILES
    tables = [pq.read_table(path, columns=["text", "id"]) for path in files]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    assert len(texts) == len(set(texts)) == 1_000
    assert all(sample_data.SHORTEST <= len(text) <= 2 * sample_data.LONGEST for text in texts)


def test_embeddings_are_unit_vectors(sample):
    column = pq.read_table(next(iter(sorted(sample.glob("*.parquet")))), columns=["embedding"])["embedding"]
    vectors = column.combine_chunks().flatten().to_numpy().reshape(-1, sample_data.DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_ratings_prefer_explained_examples_to_a_word_list():
    lesson = (
        "To open a file, you call open(). For example:\n\n>>> open('x')\n\nNote that it must exist, because ...\n" * 4
    )
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau " * 4
    good, poor = sample_data.rate(lesson), sample_data.rate(words)
    for name in ("pedagogical_structure", "lesson_engagement", "education_level"):
        assert good[name] > poor[name]
    assert all(0 <= rating <= 5 for rating in [*good.values(), *poor.values()])


def test_the_same_packages_give_the_same_bytes_and_another_recipe_replaces_them(small_library, tmp_path, monkeypatch):
    first, again = (sample_data.build_sample(tmp_path / name, 300, packages=("rich",)) for name in ("a", "b"))
    files = sorted(first.path.glob("*.parquet"))
    assert len(files) == sample_data.FILES
    for path in files:
        assert (again.path / path.name).read_bytes() == path.read_bytes()
    monkeypatch.setattr(sample_data, "RECIPE", 999)
    other = sample_data.build_sample(tmp_path / "b", 300, packages=("rich",))
    assert not other.reused and other.fingerprint != again.fingerprint


@pytest.mark.parametrize("length", [10, 299])
def test_short_texts_are_left_out(length):
    assert list(sample_data.pieces("x" * length)) == []


def test_long_texts_are_cut_between_paragraphs():
    paragraphs = [f"{number} " + "word " * 100 for number in range(30)]
    cut = list(sample_data.pieces("\n\n".join(paragraphs)))
    assert len(cut) > 1
    assert [line for piece in cut for line in piece.split("\n\n")] == [
        p.rstrip() if p is paragraphs[-1] else p for p in paragraphs
    ]
