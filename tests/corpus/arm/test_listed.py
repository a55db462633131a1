"""Lists of ids: parquet, csv and text, from a folder and from blobs."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tasks.corpus.arm.listed import IdList, require_same_list
from tasks.corpus.pool.column import recognized
from tasks.corpus.prepare import build_arms, plan_arm
from tasks.errors import DamagedError, InputError
from tasks.spec import Arm, Pool
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.corpus.corpora import shard_texts

SIZES = {"holdout_documents": 8, "holdout_fraction": 0.1}
IDS = [f"<urn:uuid:{number}>" for number in range(360)]
WANTED = IDS[::3]


@pytest.fixture
def pool(corpus: Path) -> Pool:
    for number, path in enumerate(sorted(corpus.glob("*.parquet"))):
        table = pq.read_table(path)
        ids = pa.array(IDS[120 * number : 120 * number + 120])
        table = table.append_column("id", ids).append_column(
            "number", pa.array(range(120 * number, 120 * number + 120))
        )
        pq.write_table(table, path)
    return Pool(source=corpus.as_uri(), **SIZES)


def lists() -> dict[str, bytes]:
    """The same list in several forms, with ids that no document has."""
    table = pa.table({"rank": range(len(WANTED) + 1), "id": [*WANTED, "elsewhere"]})
    parquet, csv = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    pyarrow.csv.write_csv(table, csv)
    return {
        "a.parquet": parquet.getvalue(),
        "a.csv": csv.getvalue(),
        "a list.txt": "\r\n".join(["", *WANTED, "elsewhere"]).encode(),
    }


def arm(url: str, **fields: object) -> Arm:
    return Arm(name="listed", select="all", order="shuffled", population=(), ids=url, **fields)


@pytest.mark.parametrize("name", lists())
def test_an_arm_takes_the_documents_of_a_list(name: str, pool: Pool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(lists()[name])
    root = Root(tmp_path / "root")
    (made,) = build_arms(root, pool, [arm(str(tmp_path / name))])
    held = {tuple(row.values()) for row in pq.read_table(root.path(f"pools/{made.manifest.inputs['pool']}/holdout") / "documents.parquet", columns=["blob", "row"]).to_pylist()}  # fmt: skip
    taken = pq.read_table(made.path / "documents.parquet", columns=["blob", "row"]).to_pylist()
    numbers = sorted(120 * int(row["blob"][5:8]) + row["row"] for row in taken)
    id = made.name.split("/")[1]
    require_same_list(root, arm(str(tmp_path / name)), id)
    (tmp_path / "other.txt").write_text("\n".join(WANTED[1:]))
    with pytest.raises(InputError, match=f"is another one than arms/{id}/text was made of"):
        require_same_list(root, arm(str(tmp_path / "other.txt")), id)
    free = [n for n in range(0, 360, 3) if (f"part_{n // 120:03d}.parquet", n % 120) not in held]
    assert numbers == free and made.facts["documents"] == sum(map(len, shard_texts(made.path)[:-1]))
    assert made.facts["population"] == len(free) and made.facts["filtered_documents"] == 352 - len(free)
    (tmp_path / name).write_bytes(lists()[name].replace(b"elsewhere", b"elsewher3"))
    with pytest.raises(DamagedError, match="was made from other inputs"):
        build_arms(root, pool, [arm(str(tmp_path / name))])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "007\r\nabc\na\u2028b\n"),
        ("a.csv", "id,of\r\n007,1\r\nabc,2\r\na\u2028b,3\r\n"),
        ("a.csv", '"the, ids"\n"007"\n"abc"\n"a\u2028b"\n'),
    ],
)
def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_part_of_an_id(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig", newline="")
    ids = recognized(pa.array(["007", "abc", "a\u2028b", "7", "b"]))
    assert IdList.of(arm(str(tmp_path / name))).on_it(ids).tolist() == [True, True, True, False, False]


def test_a_list_lies_in_a_container_too_and_numbers_are_ids(pool: Pool, azure: str, tmp_path: Path) -> None:
    open_blobs(f"az://{azure}").write("lists/a.txt", "".join(f"{n}\n" for n in range(0, 360, 2)).encode())
    plan = plan_arm(Root(tmp_path / "root"), pool, arm(f"az://{azure}/lists/a.txt", id_column="number"))
    assert 172 <= plan.population <= 180 and plan.population + plan.filtered_documents == 352


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("none.txt", None, {}, r"The file .*none\.txt cannot be read \(.*\): check the URL"),
        ("a.txt", b"\n", {}, r"The list .*a\.txt is empty"),
        ("a.txt", b"nobody\n", {}, r"None of the 1 ids of .*a\.txt is in the column 'id' of .*: check id_column"),
        ("a.csv", b"x,y\n1,2\n", {}, r"has the columns x, y: call the one with the ids id, or set id_column"),
        ("a.parquet", b"no parquet", {}, r"The list .*a\.parquet cannot be read .*: repair it"),
        ("a.txt", b"1\n", {"id_column": "nr"}, r"has no column 'nr' .*: --set id_column=id"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(
    name: str, content: bytes | None, fields: dict[str, str], message: str, pool: Pool, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan_arm(Root(tmp_path / "root"), pool, arm(str(tmp_path / name), **fields))
