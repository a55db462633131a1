"""Texts from elsewhere: three kinds of files, what is left out, and what is no text."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.records.scores import with_strata
from tasks.spec import Texts
from tasks.tokens.outside import encode_outside
from tasks.tokens.tokenizer import load_tokenizer
from tests.small import POOL, root_with_tokenizer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root whose pool has a tokenizer."""
    return root_with_tokenizer(tmp_path_factory.mktemp("root"))


def encode(root, folder, **fields):
    return encode_outside(root, POOL, Texts(url=str(folder), **fields))


def decoded(root, made):
    """(source, text) of every document, read back from tokens."""
    tokens = np.fromfile(made.path / "tokens.bin", "<u2")
    reference = load_tokenizer(root.open(f"pools/{POOL}/tokenizer").path)
    table = pq.read_table(made.path / "documents.parquet").to_pylist()
    return [(d["source"], reference.decode(tokens[d["offset"] : d["offset"] + d["tokens"]])) for d in table]


def test_three_kinds_of_files_by_name_without_empty_documents(root, tmp_path):
    (tmp_path / "c.txt").write_bytes(b"a whole file\nof two lines \xff")
    lines = [{"text": "a line"}, {"text": ""}, {"text": None}, {"text": "lone \ud800"}]
    (tmp_path / "b.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    pq.write_table(pa.table({"text": ["a row", None, "größer"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "README.md").write_text("no text of theirs")
    made = encode(root, tmp_path)
    assert decoded(root, made) == [
        ("a.parquet", "a row"),
        ("a.parquet", "größer"),
        ("b.jsonl", "a line"),
        ("b.jsonl", "lone ?"),
        ("c.txt", "a whole file\nof two lines \ufffd"),
    ]
    assert made.facts["empty_texts"] == 3
    table = pq.read_table(made.path / "documents.parquet")
    assert table["bytes"].to_pylist() == [len(text.encode()) for _, text in decoded(root, made)]
    assert table["cluster"].to_pylist() == [0, 1, 2, 3, 4]


def test_no_document_from_elsewhere_has_a_rating(root, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat")
    table = with_strata(pq.read_table(encode(root, tmp_path).path / "documents.parquet"), None)
    assert np.isnan(table["score"].to_numpy()).all() and table["decile"].to_pylist() == [-1]


def test_as_many_as_wanted_in_blocks_of_neighbours(root, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": f"document {i}"}) + "\n" for i in range(500)))
    made = encode(root, tmp_path, column="body", documents=200)
    found = decoded(root, made)
    assert [text for _, text in found] == [f"document {i}" for i in range(200)]
    clusters = pq.read_table(made.path / "documents.parquet")["cluster"].to_numpy()
    assert np.bincount(clusters).max() == 4 and len(np.unique(clusters)) == 50
    assert encode(root, tmp_path, column="body", documents=200).reused
    assert encode(root, tmp_path, column="body", documents=201).name != made.name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.md", b"x", "holds no files ending in .parquet, .jsonl, .txt"),
        ("a.jsonl", b'{"text": "x"}\n{"body": 1}\n', "Line 2 of .*a.jsonl is not a JSON object with the field 'text'"),
        ("a.jsonl", b'{"text": 3}\n', "The field 'text' in line 1 of .*a.jsonl is not text"),
        ("a.parquet", b"PAR1PAR1", "a.parquet cannot be read as parquet texts"),
        ("a.txt", b"", "The 1 documents under .* are all empty"),
    ],
)
def test_what_is_no_text_is_named(root, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        encode(root, tmp_path)


def test_the_column_is_the_one_of_exactly_that_name(root, tmp_path):
    pq.write_table(pa.table({"text.lang": ["en"], "text": ["the cat sat"]}), tmp_path / "a.parquet")
    assert decoded(root, encode(root, tmp_path)) == [("a.parquet", "the cat sat")]
    twice = pa.Table.from_arrays([pa.array(["one"]), pa.array(["two"])], ["text", "text"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has 2 columns 'text'"):
        encode(root, tmp_path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(root, tmp_path):
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column 'text', but body, n"):
        encode(root, tmp_path)
