"""Odd files: each is named with its problem, or read as what it is."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.pool.scores import rated
from tasks.corpus.prepare import build_arms, build_holdout, build_index, build_sample, plan_arm
from tasks.errors import ChangedError, InputError
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import SCORES, pool_columns, pool_scores, rated_table, shard_texts, write_corpus

ALL = Arm(name="all", select="all", documents_per_shard=64, population=())


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def pool_of(folder: Path, **fields: object) -> Pool:
    return Pool(**{"source": folder.as_uri(), "holdout_documents": 8, "holdout_fraction": 0.1, **fields})


def corrupt_text(path: Path) -> None:
    """Overwrite the first text chunk's pages and leave the footer as it was."""
    place = pq.read_metadata(path).row_group(0).column(0)
    with path.open("r+b") as file:
        file.seek(place.data_page_offset)
        file.write(b"\xff" * min(200, place.total_compressed_size))


def lying_rows(path: Path, claimed: int = 999) -> None:
    """A file of one row group whose footer claims more rows than there are (thrift zigzag varints in place)."""
    table = rated_table(["only one"] * 120, [[1.0] * 3] * 120)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    old, new = bytes([0xF0, 0x01]), bytes([(claimed << 1) & 0x7F | 0x80, (claimed << 1) >> 7])
    assert data.count(old, start) > 1
    data[start:] = data[start:].replace(old, new)
    path.write_bytes(data)


def beyond_the_end(path: Path) -> None:
    """A footer of another file, whose column chunks lie where this file has nothing."""
    donor = path.with_suffix(".donor")
    pq.write_table(rated_table(["long text " * 500] * 100, [[1.0] * 3] * 100), donor, compression="none")
    footer = donor.read_bytes()[-(struct.unpack("<I", donor.read_bytes()[-8:-4])[0] + 8) :]
    donor.unlink()
    path.write_bytes(b"PAR1" + b"\0" * 100 + footer)


BROKEN = {
    "no Parquet": (lambda p: p.write_bytes(b"this is no parquet file at all"), "is not a Parquet file"),
    "a few bytes": (lambda p: p.write_bytes(b"PAR1"), "is not a Parquet file"),
    "no bytes": (lambda p: p.write_bytes(b""), "is not a Parquet file"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "is not a Parquet file"),
    "long footer": (lambda p: p.write_bytes(b"PAR1" * 9 + b"\xff\xff\xff\x7fPAR1"), "is damaged"),
    "garbled footer": (lambda p: p.write_bytes(b"PAR1" + b"\xaa" * 90 + b"\x40\0\0\0PAR1"), "is damaged"),
    "chunks beyond its end": (beyond_the_end, "is damaged"),
    "more rows claimed": (lying_rows, "is damaged"),
    "no rows": (lambda p: pq.write_table(pq.read_table(p).slice(0, 0), p), "is empty"),
    "no text": (lambda p: pq.write_table(pq.read_table(p).drop_columns(["text"]), p), "no column 'text'"),
    "nested text": (
        lambda p: pq.write_table(pq.read_table(p).set_column(0, "text", pa.array([["a"]] * 120)), p),
        "nested column 'text'",
    ),
    "text in a struct": (
        lambda p: pq.write_table(pq.read_table(p).set_column(0, "text", pa.array([{"en": "a"}] * 120)), p),
        "nested column 'text'",
    ),
    "numbers as text": (
        lambda p: pq.write_table(pq.read_table(p).set_column(0, "text", pa.array(range(120))), p),
        "text is needed",
    ),
}
ODD_SCORE = {
    "none": (lambda table: table.drop_columns([SCORES[1]]), f"has no column '{SCORES[1]}'"),
    "a text": (
        lambda table: table.drop_columns([SCORES[0]]).append_column(SCORES[0], [["5"] * 120]),
        f"has '{SCORES[0]}' as text, unlike files before it",
    ),
    "a list": (
        lambda table: table.drop_columns([SCORES[0]]).append_column(SCORES[0], [[[5.0]] * 120]),
        f"has a nested column '{SCORES[0]}'",
    ),
    "a date": (
        lambda table: table.drop_columns([SCORES[0]]).append_column(SCORES[0], [pa.array([5] * 120, pa.date32())]),
        "a number or text is needed",
    ),
    "bytes": (
        lambda table: table.drop_columns([SCORES[0]]).append_column(SCORES[0], [[b"5", b"\xff"] * 60]),
        "bytes that are no UTF-8: a number or text is needed",
    ),
    "a duration": (
        lambda table: table.drop_columns([SCORES[0]]).append_column(SCORES[0], [pa.array([5] * 120, pa.duration("s"))]),
        f"has '{SCORES[0]}' as duration[s]: a number or text is needed",
    ),
}


def test_a_text_in_a_struct_that_is_missing_is_empty(root: Root, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    table = rated_table(["unused"] * 120, [[1.0] * 3] * 120).drop_columns(["text"])
    pages = [[{"text": f"text {i}"}, {"text": None}, None][i % 3] for i in range(120)]
    pq.write_table(table.append_column("page", pa.array(pages)), folder / "part.parquet", row_group_size=50)
    (made,) = build_arms(root, pool_of(folder, text_column="page.text"), [ALL])
    *shards, held = shard_texts(made.path)
    assert sorted(text for shard in [*shards, held] for text in shard) == sorted(f"text {i}" for i in range(0, 120, 3))


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_that_cannot_be_used_is_named_or_left_out(how: str, corpus: Path, root: Root) -> None:
    break_it, message = BROKEN[how]
    break_it(corpus / "part_001.parquet")
    with pytest.raises(InputError, match=r"part_001\.parquet") as caught:
        build_index(root, pool_of(corpus))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    indexed = build_index(root, pool_of(corpus, skip_bad_files=True))
    assert indexed.facts["documents"] == 240
    assert indexed.facts["bad_files_count"] == 1
    assert message in indexed.facts["bad_files"]["part_001.parquet"]
    (made,) = build_arms(root, pool_of(corpus, skip_bad_files=True), [ALL])
    assert made.facts["documents"] == 232


@pytest.mark.parametrize("how", ODD_SCORE)
def test_a_file_without_a_rating_is_named_or_its_documents_are_unrated(how: str, corpus: Path, root: Root) -> None:
    change, message = ODD_SCORE[how]
    path = corpus / "part_001.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(InputError, match=r"part_001\.parquet .* which leaves its documents unrated") as caught:
        plan_arm(root, pool_of(corpus), Arm())
    assert message in str(caught.value)
    assert plan_arm(root, pool_of(corpus), ALL.model_copy(update={"score": {SCORES[2]: 1.0}})).population == 352
    whole = pool_of(corpus, skip_bad_files=True)
    assert np.isnan(pool_scores(root, whole)[120:240]).all()
    plan = plan_arm(root, whole, Arm())
    assert plan.unrated_documents > 100 and plan.population + plan.unrated_documents == 352


def test_files_left_out_are_named_in_log_plan_and_manifests_twenty_and_counted(
    corpus: Path, root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(23):
        (corpus / f"broken_{number:02d}.parquet").write_bytes(b"nothing of the kind")
    pool = pool_of(corpus, skip_bad_files=True)
    plan = plan_arm(root, pool, Arm())
    (made,) = build_arms(root, pool, [ALL])
    indexed = build_index(root, pool)
    for found in (plan.as_dict(), made.facts, indexed.facts):
        assert found["bad_files_count"] == 23
        assert list(found["bad_files"]) == [f"broken_{number:02d}.parquet" for number in range(20)]
        assert set(found["bad_files"].values()) == {"is not a Parquet file (it does not end with PAR1)"}
    assert "The index of pool is made without 23 files that cannot be used: broken_00.parquet is not" in caplog.text
    assert "; and 3 more." in caplog.text


def test_a_repaired_file_is_indexed_by_the_next_run(corpus: Path, root: Root) -> None:
    good = (corpus / "part_001.parquet").read_bytes()
    (corpus / "part_001.parquet").write_bytes(b"broken" * 9)
    with pytest.raises(InputError):
        build_index(root, pool_of(corpus))
    (corpus / "part_001.parquet").write_bytes(good)
    assert build_index(root, pool_of(corpus)).facts["documents"] == 360


def test_text_that_cannot_be_decoded_is_named_or_left_out(
    corpus: Path, root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt_text(corpus / "part_002.parquet")
    with pytest.raises(InputError, match=r"part_002\.parquet is damaged"):
        build_arms(root, pool_of(corpus), [ALL])
    pool = pool_of(corpus, skip_bad_files=True)
    (made,) = build_arms(root, pool, [ALL])
    held = pq.read_table(build_holdout(root, pool).path / "documents.parquet").column("blob").to_pylist()
    assert "is damaged" in made.facts["bad_files"]["part_002.parquet"] and made.facts["bad_files_count"] == 1
    assert build_holdout(root, pool).facts["bad_files"].keys() <= {"part_002.parquet"}
    assert "The text of all is made without a file that cannot be used: part_002.parquet is damaged" in caplog.text
    assert made.facts["documents"] == 240 - sum(blob != "part_002.parquet" for blob in held)
    assert build_sample(root, pool).facts["documents"] >= 200


def test_invalid_utf8_is_refused_by_file_row_and_byte(corpus: Path, root: Root) -> None:
    table = pq.read_table(corpus / "part_001.parquet")
    values = [text.encode() for text in table.column("text").to_pylist()]
    values[77] = b"fine until \xff here"
    broken = pa.Array.from_buffers(pa.string(), 120, pa.array(values, pa.binary()).buffers())
    pq.write_table(table.set_column(0, "text", broken), corpus / "part_001.parquet", row_group_size=50)
    with pytest.raises(InputError, match=r"part_001\.parquet has text that is not UTF-8 \(row 77, byte 11"):
        build_arms(root, pool_of(corpus), [ALL])


def test_documents_of_one_byte_to_a_hundred_megabytes(tmp_path: Path, root: Root) -> None:
    raw = tmp_path / "raw"
    write_corpus(raw, files=1, rows=40)
    texts = ["x", "é" * 50_000_000, "y" * 7, "z" * 8, "w" * 9]
    pq.write_table(rated_table(texts, [[9.0] * 3] * 5), raw / "large.parquet", compression="zstd")
    (made,) = build_arms(root, pool_of(raw, holdout_fraction=0.2, seed=4), [Arm(name="top", share=0.99)])
    held = set(pq.read_table(root.open(f"pools/{open_pool(root, pool_of(raw, holdout_fraction=0.2, seed=4)).pool_id}/holdout").path / "documents.parquet")["text"].to_pylist())  # fmt: skip
    shards = shard_texts(made.path)
    assert sorted(shards[0][: 5 - len(held & set(texts))]) == sorted(text for text in texts if text not in held)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_text_types_are_read_alike(kind: pa.DataType, tmp_path: Path, corpus: Path) -> None:
    made = []
    for number, folder in enumerate((corpus, tmp_path / "other")):
        folder.mkdir(exist_ok=True)
        for path in sorted(corpus.glob("*.parquet")):
            table = pq.read_table(path)
            column = table.column("text").cast(kind) if number else table.column("text")
            pq.write_table(table.set_column(0, "text", column), folder / path.name, row_group_size=50)
        (arm,) = build_arms(Root(tmp_path / f"root{number}"), pool_of(folder), [ALL])
        made.append([path.read_bytes() for path in sorted(arm.path.glob("shard_*.parquet"))])
    assert made[0] == made[1]


def test_a_blob_that_changes_in_mid_run_is_named(corpus: Path, root: Root) -> None:
    handle = open_pool(root, pool_of(corpus))
    build_holdout(root, handle)
    write_corpus(corpus, files=1, seed=9)
    with pytest.raises(ChangedError, match=r"part_000\.parquet has changed since it was indexed"):
        build_arms(root, handle, [ALL])


def test_a_document_that_lacks_a_rating_has_no_score_and_is_counted(tmp_path: Path, root: Root) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    lacking = [[None, 3.0, 3.0], [3.0, float("nan"), 3.0], [3.0, 3.0, float("inf")]]
    rows = [*lacking, [3.0, 3.0, 3.0], *[[0.0, 0.0, float(i)] for i in range(96)]]
    pq.write_table(rated_table([f"text {i}" for i in range(100)], rows), raw / "a.parquet")
    columns = pool_columns(root, pool_of(raw))
    scores = pool_scores(root, pool_of(raw))
    assert np.isnan(scores[:3]).all() and scores[3:5].tolist() == [3.0, 0.0]
    by_column = [rated(columns, [name], 100)[:4].tolist() for name in SCORES]
    assert by_column == [[i != lacked for i in range(4)] for lacked in range(3)]


def test_a_column_of_weight_0_is_no_part_of_the_score_and_may_be_missing(tmp_path: Path, root: Root) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    table = rated_table([f"text {i}" for i in range(100)], [[1.0, None if i % 2 else 5.0, 9.0] for i in range(100)])
    pq.write_table(table, raw / "a.parquet")
    pq.write_table(table.drop_columns([SCORES[1]]), raw / "b.parquet")
    pool = pool_of(raw, score={SCORES[0]: 1.0, SCORES[1]: 0.0})
    assert np.unique(pool_scores(root, pool)).tolist() == [1.0]
    plan = plan_arm(root, pool, Arm(share=1.0, population=(SCORES[1],)))
    held = pq.read_table(build_holdout(root, pool).path / "documents.parquet").to_pylist()
    of_them = sum(document["blob"] == "a.parquet" and document["row"] % 2 == 0 for document in held)
    assert (plan.population, plan.documents) == (50 - of_them, 50 - of_them)
    assert plan.unrated_documents == 200 - len(held) - plan.population


def test_weights_and_one_ready_column(tmp_path: Path, root: Root) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    pq.write_table(rated_table([f"text {i}" for i in range(100)], [[1.0, 5.0, 9.0]] * 100, "float"), raw / "a.parquet")
    for score, found in (({SCORES[0]: 1.0, SCORES[1]: 3.0}, 4.0), ({SCORES[2]: 0.5}, 9.0)):
        pool = pool_of(raw, score=score)
        assert np.unique(pool_scores(root, pool)).tolist() == [found]


def test_embeddings_are_not_read(tmp_path: Path, root: Root) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    table = rated_table([f"text {i} " * 30 for i in range(6000)], [[float(i % 7)] * 3 for i in range(6000)])
    rng = np.random.default_rng(0)
    table = table.set_column(2, "embedding", pa.array(list(rng.standard_normal((6000, 256), np.float32))))
    pq.write_table(table, raw / "a.parquet", row_group_size=1000)
    (made,) = build_arms(root, pool_of(raw), [ALL])
    embedding = sum(pq.read_metadata(raw / "a.parquet").row_group(g).column(2).total_compressed_size for g in range(6))
    read = made.facts["bytes_read"] + root.open(f"pools/{made.manifest.inputs['pool']}/index").facts["bytes_read"]
    assert read < (raw / "a.parquet").stat().st_size - embedding + 300_000
