"""Valid Parquet files of unusual writers: they are read, or left out with a sentence, and never end the process."""

import base64
import io
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest

from tasks.corpus.prepare import build_index, plan_arm
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import SCORES, arm_and_holdout, pool_scores, rated_texts

SIZES = {"holdout_documents": 20, "holdout_fraction": 0.2}
PADDED = (
    b"c-qBPO=uHA6rOI<B-EBf=q$SuWm#x#p^0tPf>LNb2nDM|4=w(bbh<l9SN6}{SxGE~Qs|+2@gN?=gEx^DJV>EnDIyg?)Pq?3L7^xj"
    b"=*5GA2PMuXO`6nXtsuCkH{W~j`@T2(*i9Td(FFm#9)?$$4w#@}0EPf)TiEk+^eNNi2h4*AdwF;E#--QRv+rNu>>3`}{%-!q=WVZ="
    b"bGh7;x!LsL7faVNLvlV`b;F<)m_7bj*l{!Bn;vb*`DWJogf?OA<IMBnJEuO)os4~3o!2jJ90uPu-@2VzSO>}u@Aumut^{3o^>Apj"
    b"xnrQI4wwu8AW;Xt^nrd5iUdLUNIM8m-GvXQ#z)QIOXfc|GyIu>fGv$<4bfKE*urprf-|HA0N4Ph>LA1IG_j1*Mp}`OnzV`KNW`&l"
    b"5}n5uO5;))mqIi_OOPZv7Lu~RRq!gdZ9`9DJxyT^>!eh|Cio~n*cyt$Mjisb-~l$W3HE-NU1E5^hI)Gd;G=X#0NtrtSC}Yl$QOGX"
    b"%(L99XD?8a6{eS?7vw&X{$d0GTgklaD>B!dsho7#w-wSwf04BIHI%b1`nSN!P77>;0$jjEx{Pe@QD8!p4As%}q@v3>gKhDkaC$;a"
    b"DOi=0I?^yb>yD~+2%?4wk`X~0NM&AkG&7qdS<}Ttdaoh{3pyoKQ!-eNDLTPvY>AU2w4xwiO;>bZs_3O$s;Ja9#?E4iRFQXdMKWY8"
    b"PId^JwLEvi+r%GRE8V431CgG6RqPcrRqWMTEN^FCUH`yT&BgR~<=OVvw(>h<VMGjz;uE5(j9JLa7RI-UiL7%D&MyNMu@ysiGu@rt"
    b"J@EtaPIoFXzxm0sJsjDPE9==C?}~R7oLEF56s_o)1YE34FlJ`SxS<Q{1VT|!Xd81BRTeti!O?p9v88{iUtaVBJp"
)
"""A file of 40 rows whose one page of texts, v1 in ZSTD, ends in zeros: zlib, then base 85."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.mark.parametrize("column", [SCORES[0], "token_count"])
def test_a_file_with_a_column_twice_is_refused_or_left_out(column: str, raw: Path, tmp_path: Path) -> None:
    good = rated_texts(100)
    pq.write_table(good, raw / "good.parquet")
    pq.write_table(good.append_column(column, good[column]), raw / "twice.parquet")
    with pytest.raises(InputError, match=rf"twice\.parquet.*{column}"):
        plan_arm(Root(tmp_path / "a"), Pool(source=raw.as_uri(), **SIZES), Arm(), workers=1)
    skipping = Pool(source=raw.as_uri(), skip_bad_files=True, **SIZES)
    plan = plan_arm(Root(tmp_path / "b"), skipping, Arm(), workers=1)
    assert 0 < plan.population <= 100
    assert plan.bad_files_count == 1 and f"2 columns '{column}'" in plan.bad_files["twice.parquet"]
    if column == "token_count":  # a rating alone leaves documents unrated, and in the pool
        assert plan.pool_documents == 100


def before_text(table: pa.Table) -> pa.Table:
    return table.add_column(0, "text.lang", pa.array(["en"] * len(table)))


def before_a_score(table: pa.Table) -> pa.Table:
    return table.add_column(0, f"{SCORES[0]}.std", pa.array([0.5] * len(table)))


@pytest.mark.parametrize("flattened", [before_text, before_a_score])
def test_a_column_is_found_by_its_whole_name(flattened, raw: Path, tmp_path: Path) -> None:
    table = rated_texts(100)
    pq.write_table(flattened(table), raw / "a.parquet")
    trained, held = arm_and_holdout(tmp_path, raw.as_uri())
    assert sorted(trained + held) == sorted(table["text"].to_pylist())


def as_a_dotted_name(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    return table.rename_columns({column: f"meta.{column}" for column in columns})


def as_a_field(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    fields = pa.StructArray.from_arrays([table[c].combine_chunks() for c in columns], columns)
    return table.drop_columns(list(columns)).append_column("meta", fields)


@pytest.mark.parametrize("moved", [as_a_dotted_name, as_a_field])
def test_text_ratings_and_counts_are_found_under_a_name_with_a_dot(moved, raw: Path, tmp_path: Path) -> None:
    table = rated_texts(100)
    pq.write_table(moved(table, ["text", "token_count", *SCORES]), raw / "a.parquet", row_group_size=30)
    pool = {
        "text_column": "meta.text",
        "token_count_column": "meta.token_count",
        "score": {f"meta.{column}": 1.0 for column in SCORES},
    }
    made = build_index(Root(tmp_path / "root"), Pool(source=raw.as_uri(), **pool, **SIZES), workers=1)
    assert made.facts["tokens"] == sum(table["token_count"].to_pylist())
    assert (
        pool_scores(Root(tmp_path / "root"), Pool(source=raw.as_uri(), **pool, **SIZES)).tolist()
        == table[SCORES[0]].to_pylist()
    )
    trained, held = arm_and_holdout(tmp_path, raw.as_uri(), **pool)
    assert sorted(trained + held) == sorted(table["text"].to_pylist())


def test_a_dotted_name_comes_before_a_field_of_that_path(raw: Path, tmp_path: Path) -> None:
    table = rated_texts(100)
    table = table.append_column("meta", pa.array([{"tokens": 7}] * 100)).append_column("meta.tokens", [[5] * 100])
    pq.write_table(table, raw / "a.parquet")
    pool = Pool(source=raw.as_uri(), token_count_column="meta.tokens", **SIZES)
    assert build_index(Root(tmp_path / "root"), pool, workers=1).facts["tokens"] == 500


def test_zeros_behind_the_texts_of_a_page_are_left_alone(raw: Path, tmp_path: Path) -> None:
    data = zlib.decompress(base64.b85decode(PADDED))
    texts = [f"document {row:02d} on water" for row in range(40)]
    assert pq.read_table(io.BytesIO(data))["text"].to_pylist() == texts
    (raw / "a.parquet").write_bytes(data)
    trained, held = arm_and_holdout(tmp_path, raw.as_uri(), holdout_documents=8)
    assert sorted(trained + held) == texts


@pytest.mark.parametrize("cuts", [(0, 100), (100, 0), (50, 0, 50)], ids=["first", "last", "between"])
def test_an_empty_row_group_changes_nothing(cuts: Sequence[int], raw: Path, tmp_path: Path) -> None:
    table, start = rated_texts(100), 0
    with pq.ParquetWriter(raw / "a.parquet", table.schema) as writer:
        for rows in cuts:
            writer.write_table(table.slice(start, rows))
            start += rows
    trained, held = arm_and_holdout(tmp_path, raw.as_uri())
    assert sorted(trained + held) == sorted(table["text"].to_pylist())


class Keys(encryption.KmsClient):
    """A key service that wraps nothing."""

    def wrap_key(self, key: bytes, master: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, master: str) -> bytes:
        return base64.b64decode(wrapped)


def write_encrypted(path: Path, column: str, plaintext_footer: bool) -> None:
    table = rated_texts(100, "locked").append_column("email", pa.array(["somebody@example.org"] * 100))
    factory = encryption.CryptoFactory(lambda _: Keys())
    chosen = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"k": [column]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), chosen)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("column", "plaintext_footer", "sentence"),
    [
        ("text", True, "has an encrypted column 'text'"),
        ("token_count", True, "has an encrypted column 'token_count'"),
        (SCORES[1], True, f"has an encrypted column '{SCORES[1]}'"),
        ("email", False, "is encrypted as a whole"),
    ],
)
def test_an_encrypted_column_that_is_needed_is_refused_by_file_and_name(
    column: str, plaintext_footer: bool, sentence: str, raw: Path, tmp_path: Path
) -> None:
    write_encrypted(raw / "locked.parquet", column, plaintext_footer)
    with pytest.raises(InputError, match=rf"locked\.parquet {sentence}"):
        plan_arm(Root(tmp_path / "root"), Pool(source=raw.as_uri(), **SIZES), Arm(), workers=1)


@pytest.mark.parametrize(("column", "documents"), [("text", 100), ("email", 200)])
def test_a_file_with_an_encrypted_column_does_not_end_the_process(
    column: str, documents: int, raw: Path, tmp_path: Path
) -> None:
    pq.write_table(rated_texts(100), raw / "good.parquet")
    write_encrypted(raw / "locked.parquet", column, plaintext_footer=True)
    program = textwrap.dedent("""
        import sys
        from tasks.corpus.pool.survey import survey
        from tasks.corpus.prepare import build_arms
        from tasks.spec import Arm, Pool
        from tasks.store.root import Root
        source, root = sys.argv[1:]
        pool = Pool(source=source, skip_bad_files=True, holdout_documents=20, holdout_fraction=0.2)
        (made,) = build_arms(Root(root), pool, [Arm(select="all")], workers=1)
        print(survey(source)["files"], made.facts["documents"] + made.facts["holdout_documents"])
    """)
    command = [sys.executable, "-c", program, raw.as_uri(), str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["2", str(documents)]), done.stderr
