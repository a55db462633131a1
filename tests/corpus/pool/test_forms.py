"""One file, a pattern, a partitioned folder: each gives the documents that a folder of the same files gives."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.prepare import build_arms, plan_arm
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.corpus.corpora import SCORES, arm_and_holdout, pool_scores, rated_texts, write_corpus

SIZES = {"holdout_documents": 20, "holdout_fraction": 0.2}


@pytest.fixture(params=["folder", "container"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place with web/part-00.parquet to part-02.parquet and other.parquet."""
    for number in range(3):
        (tmp_path / "raw/web").mkdir(parents=True, exist_ok=True)
        pq.write_table(rated_texts(60, f"part {number}"), tmp_path / f"raw/web/part-0{number}.parquet")
    pq.write_table(rated_texts(60, "other"), tmp_path / "raw/web/other.parquet")
    if request.param == "folder":
        return str(tmp_path / "raw")
    container = request.getfixturevalue("azure")
    for path in (tmp_path / "raw").rglob("*.parquet"):
        open_blobs(f"az://{container}").upload(path, path.relative_to(tmp_path / "raw").as_posix())
    return f"az://{container}"


@pytest.mark.parametrize(
    ("form", "tags"),
    [("web/part-01.parquet", ["part 1"]), ("web/part-0*.parquet", ["part 0", "part 1", "part 2"]), ("web", None)],
)
def test_a_file_or_a_pattern_is_a_source_like_a_folder(form: str, tags: list[str] | None, raw: str, tmp_path: Path):
    trained, held = arm_and_holdout(tmp_path, f"{raw}/{form}")
    wanted = [text for tag in tags or ["part 0", "part 1", "part 2", "other"] for text in rated_texts(60, tag)["text"].to_pylist()]  # fmt: skip
    assert sorted(trained + held) == sorted(wanted)


def test_a_file_that_is_not_there_is_named_as_it_was_given(raw: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"web/part-07\.parquet holds no files"):
        plan_arm(Root(tmp_path / "root"), Pool(source=f"{raw}/web/part-07.parquet"), Arm())


@pytest.mark.parametrize("form", ["part_001.parquet", "part_00*.parquet"])
def test_a_damaged_file_is_named_where_it_lies(form: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "raw", 2)
    (tmp_path / "raw/part_001.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=f"^{tmp_path}/raw/part_001.parquet is not a Parquet file"):
        plan_arm(Root(tmp_path / "root"), Pool(source=f"{tmp_path}/raw/{form}", **SIZES), Arm())


def test_the_folders_of_a_partitioned_data_set_are_columns(tmp_path: Path) -> None:
    texts = {}
    for year in ("2023", "2024"):
        for lang in ("de", "en%2FUS", "__HIVE_DEFAULT_PARTITION__"):
            folder = tmp_path / f"raw/_year={year}/lang={lang}"
            folder.mkdir(parents=True)
            table = rated_texts(60, f"{year} {lang}")
            texts[year, lang] = table["text"].to_pylist()
            pq.write_table(table, folder / "part-0.parquet")
    root, pool = Root(tmp_path / "root"), Pool(source=str(tmp_path / "raw"), **SIZES)
    for where, year, langs in [
        ("_year > 2023 and lang == 'en/US'", "2024", ["en%2FUS"]),
        ("_year == 2023 and lang is not None", "2023", ["de", "en%2FUS"]),
    ]:
        (made,) = build_arms(root, pool, [Arm(select="all", where=where, documents_per_shard=64)], workers=1)
        taken = {
            text
            for shard in sorted(made.path.glob("shard_*"))[:-1]
            for text in pq.read_table(shard)["text"].to_pylist()
        }
        wanted = {text for lang in langs for text in texts[year, lang]}
        held = set(pq.read_table(root.path(f"pools/{made.manifest.inputs['pool']}/holdout/documents.parquet"))["text"].to_pylist())  # fmt: skip
        assert taken == wanted - held
    with pytest.raises(InputError, match="_year"):
        plan_arm(root, pool, Arm(where="month == 3"), workers=1)


def test_a_column_of_a_file_comes_before_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / f"raw/{SCORES[0]}=5"
    folder.mkdir(parents=True)
    pq.write_table(rated_texts(100, score=1.0).append_column("lang", pa.array(["en"] * 100)), folder / "a.parquet")
    assert set(pool_scores(Root(tmp_path / "root"), Pool(source=str(tmp_path / "raw"), **SIZES))) == {1.0}
