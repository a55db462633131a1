"""Parts of the holdout by columns of the pool: from the data to the bands, the report and the sentence."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.comparison import Hands, plan_of
from flows.sequence import Steps
from infra.cli.main import app
from tasks.corpus.division import build_division, require_columns_there
from tasks.corpus.pool import handle
from tasks.corpus.prepare import build_holdout, build_index
from tasks.errors import DamagedError, InputError
from tasks.records import code
from tasks.records.division import read_division, write_division
from tasks.records.layout import DOCUMENTS, PoolFolder
from tasks.records.verdict import Verdict
from tasks.reports.report import verdict_report
from tasks.spec import ENGAGEMENT, FACTUAL, Arm, Pool, Training
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.divided import parts_of
from tasks.verdict.judge import judge
from tests.corpus.corpora import rated_texts
from tests.planted import DOCUMENTS as SCORED
from tests.planted import POOL


def counts(values: list, column: str = "c") -> dict[str, int]:
    codes, labels = parts_of(column, pa.array(values))
    return {label.removeprefix(f"{column}: "): int((codes == i).sum()) for i, label in enumerate(labels)}


def test_texts_are_parted_by_value_the_rare_ones_together_and_those_without_one_apart():
    found = counts(["de"] * 300 + ["en"] * 600 + [f"x{i}" for i in range(40)] + [None] * 60)
    assert found == {"en": 600, "de": 300, "40 rare values": 40, "no value": 60}
    assert next(iter(counts([f"dump {i:02d}" for i in range(30) for _ in range(30 + i)]))) == "dump 29"
    assert len(counts([f"dump {i:02d}" for i in range(30) for _ in range(30)])) == 21, "20 values and the others"


def test_numbers_are_parted_by_fifths_equal_ones_in_one_part_and_few_different_ones_by_value():
    many = np.random.default_rng(1).normal(size=1_000)
    assert list(counts(many.tolist()).values()) == [200] * 5
    tied = counts([0.0] * 500 + many[:500].__abs__().tolist() + [None] * 7)
    assert (
        sum(tied.values()) == 1_007 and next(iter(tied)) == "0 to 0" and tied["0 to 0"] == 500 and tied["no value"] == 7
    )
    assert counts([3.0] * 50 + [1.0] * 20 + [2.5] * 30 + [9.0]) == {"1": 20, "2.5": 30, "3": 50, "1 rare values": 1}


def test_parts_that_differ_are_named_differently():
    dates = [20240131.0 + i % 2 for i in range(100)]
    assert list(counts(dates)) == ["20240131", "20240132"]
    assert next(iter(counts([1.7e9 + i for i in range(100)]))) == "1700000000 to 1700000019"
    long = [f"https://example.org/some/folder/of/documents/{i % 2}.html" for i in range(100)]
    assert list(counts(long)) == [f"https://example.org/…of/documents/{i}.html" for i in "01"]
    alike = ["a" * 20 + middle + "b" * 20 for middle in ("x", "yy")]
    assert list(counts(alike * 50)) == ["a" * 20 + "…" + "b" * 19, "a" * 20 + "…" + "b" * 19 + " (2)"]
    assert list(counts(["none"] * 50 + [None] * 50 + ["x"] * 20 + [""] * 10)) == [
        "none",
        "x",
        "an empty text",
        "no value",
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["en"] * 100, "all of it is en"),
        ([f"id {i}" for i in range(500)], "all of it is 500 rare values"),
        ([None] * 100, "no value there"),
    ],
)
def test_a_column_that_makes_no_parts_is_refused(values, words):
    with pytest.raises(InputError, match=f"'c' makes no parts of the holdout: .*{words}.*Take another"):
        parts_of("c", pa.array(values, pa.string()))


def divided(bench, column: str, values: pa.Array) -> None:
    bench.root.build(
        PoolFolder(POOL).division(column), lambda work: write_division(work, values), spec={"column": column}
    )


def test_the_part_where_an_arm_was_planted_worse_stands_out_in_verdict_report_and_sentence(bench):
    language = np.where(np.arange(SCORED) % 4 == 0, "de", "en <b>")
    divided(bench, "language", pa.array(language.tolist()))
    divided(bench, "length", pa.array(bench.score))
    plain = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    bench.base = bench.base + np.where(language == "de", 0.3, 0.0)
    runs = {"top16": [bench.run("top16", seed, -0.05, draw=7) for seed in (1, 2, 3)], "rand16": plain["rand16"]}
    verdict = judge(bench.root, "by", runs, strata_columns=["language", "length"])
    (pair,) = verdict.comparisons
    rows = {row.label: row for row in pair.strata if row.kind == "column"}
    assert list(rows)[:2] == ["language: en <b>", "language: de"] and len(rows) == 7
    assert {row.column for row in rows.values()} == {"language", "length"}
    assert rows["language: de"].difference == pytest.approx(0.25, abs=0.01) and rows["language: de"].stands_out
    assert "rand16 is better on language: de (+0.2" in pair.sentence and pair.sentence.endswith("decide nothing.")
    assert "The interval is not for other draws" in pair.sentence
    page = verdict_report(bench.root, verdict)
    assert "By the column language" in page and "By the column length" in page and "en &lt;b&gt;" in page
    assert Verdict.parse(verdict.to_json(), "x", "y") == verdict

    (bare,) = judge(bench.root, "without", runs).comparisons
    assert "column" not in {row.kind for row in bare.strata} and "Of parts" not in bare.sentence
    (wider,) = (row for row in pair.strata if row.kind == "all")
    (narrow,) = (row for row in bare.strata if row.kind == "all")
    assert (wider.low, wider.high) == (narrow.low, narrow.high)
    assert (pair.low, pair.high, pair.p) == (bare.low, bare.high, bare.p), "what decides is not moved"
    assert wider.band_high - wider.band_low > narrow.band_high - narrow.band_low, "bands hold for more parts at once"


def test_halves_that_disagree_are_said_in_the_verdicts_sentence(bench):
    plain = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    assert "halves disagree" not in judge(bench.root, "alike", plain).comparisons[0].sentence
    bench.base = bench.base + np.where(bench.score > np.median(bench.score), -0.1, 0.2)
    runs = {"top16": [bench.run("top16", seed, -0.05, draw=7) for seed in (1, 2, 3)], "rand16": plain["rand16"]}
    (pair,) = judge(bench.root, "apart", runs).comparisons
    said = r"The halves disagree: rand16 is better on the worse-rated half, \+0\.1\S* \(.*\), and top16 is better on the better-rated half, −0\.1"
    assert re.search(said, pair.sentence)
    (once,) = judge(bench.root, "once", {label: each[:1] for label, each in runs.items()}).comparisons
    assert "halves disagree" not in once.sentence, "bands of one seed do not hold for new ones"


def test_a_division_of_another_holdout_is_refused_and_one_that_is_lacking_is_named(bench):
    runs = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    with pytest.raises(InputError, match=r"There is no complete artifact pools/.*/divisions/language"):
        judge(bench.root, "x", runs, strata_columns=["language"])
    divided(bench, "language", pa.array(["de", "en"] * 50))
    with pytest.raises(DamagedError, match="by language has 100 documents, the scores 600"):
        judge(bench.root, "x", runs, strata_columns=["language"])


@pytest.fixture
def pool(tmp_path) -> Pool:
    """Two files: the second has no `language`; `dump` is where a document lies."""
    folder = tmp_path / "raw"
    for number, languages in enumerate((["en", "de", "en", None], None)):
        table = rated_texts(800, f"file {number}")
        if languages:
            table = table.append_column("language", pa.array(languages * 200))
        folder.joinpath(f"dump={number}").mkdir(parents=True)
        pq.write_table(table, folder / f"dump={number}" / "a.parquet", row_group_size=100)
    return Pool(source=folder.as_uri(), holdout_documents=200, holdout_fraction=0.2, vocab_size=512)


def test_a_column_is_read_for_the_holdout_of_a_pool_that_is_there(pool, tmp_path):
    root = Root(tmp_path / "root")
    held = build_holdout(root, pool)
    before = {name: root.find(name).fingerprint for name in root.names("pools")}
    where = pq.read_table(held.path / DOCUMENTS).to_pylist()
    for column, expected in {
        "language": [("en", "de", "en", None)[row["row"] % 4] if "=0" in row["blob"] else None for row in where],
        "dump": [float("=1" in row["blob"]) for row in where],
        FACTUAL: [float(row["row"] % 5) for row in where],
    }.items():
        made = build_division(root, pool, column)
        assert read_division(made.path).to_pylist() == expected
    assert {name: root.find(name).fingerprint for name in before} == before, "nothing else was made anew"
    with pytest.raises(InputError, match=r"strata asks for the column 'langage', but .* has none: take language"):
        build_division(root, pool, "langage")
    with pytest.raises(InputError, match=r"^The score asks for the column 'qualty', but"):
        require_columns_there(root, pool, [], {"qualty": 1.0})


def test_a_column_that_the_pool_lacks_is_refused_before_anything_is_read_or_trained(pool, tmp_path):
    root = Root(tmp_path / "root")
    arms = [Arm(order="shuffled"), Arm(name="rand", select="random", order="shuffled")]
    training = Training(sequence_length=64, device="cpu", precision="fp32")
    spec = ComparisonSpec("x", pool, arms, [1, 2], training, strata=["language", "langage"])
    with pytest.raises(InputError, match=r"no column 'langage' \(it has .*language.*take language instead"):
        plan_of(root, spec, Hands(root, Steps()))
    assert root.names("pools") == [] and root.names("arms") == []


@pytest.mark.parametrize("indexed", [False, True])
def test_a_column_of_dates_is_refused_before_arms_are_prepared(indexed, tmp_path):
    days = {"day": pa.date32(), "time": pa.timestamp("us"), "price": pa.decimal128(9, 2), "year": pa.int64()}
    table = rated_texts(400)
    for name, kind in days.items():
        table = table.append_column(name, pa.array([2] * 400, kind))
    table = table.append_column("good", pa.array([True, False] * 200))
    (tmp_path / "raw").mkdir()
    pq.write_table(table, tmp_path / "raw" / "a.parquet")
    pool = Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=50, holdout_fraction=0.2, vocab_size=512)
    root = Root(tmp_path / "root")
    if indexed:
        build_index(root, pool)
    require_columns_there(root, pool, ["year", FACTUAL], {FACTUAL: 1.0, "good": 1.0})
    arms = [Arm(order="shuffled"), Arm(name="rand", select="random", order="shuffled")]
    training = Training(device="cpu", precision="fp32")
    number, either = "a number is needed", "a number or text is needed"
    for name, given, needed in [
        *((name, {"strata": ["year", name]}, either) for name in ("day", "time", "price")),
        ("day", {"strata_by": {"day": 1.0}}, number),
        ("text", {"strata_by": {"text": 1.0}}, number),
        ("time", {"strata_by": "time * 2"}, either),
    ]:
        spec = ComparisonSpec("x", pool, arms, [1, 2], training, **given)
        with pytest.raises(InputError, match=rf"a\.parquet has '{name}' as .*: {needed}; take another column\."):
            plan_of(root, spec, Hands(root, Steps()))
    spec = ComparisonSpec("x", pool, arms, [1, 2], training, strata_by={"yaer": 1.0})
    with pytest.raises(InputError, match=r"column 'yaer'.*take year"):
        plan_of(root, spec, Hands(root, Steps()))
    assert root.names("arms") == []


def test_fabrating_judge_reads_a_column_for_runs_that_are_there(tiny, tmp_path):
    root = shutil.copytree(tiny.folder, tmp_path / "root")
    runs = [f"{label}={run}" for label, run in zip(("top", "rand"), tiny.runs, strict=True)]
    done = CliRunner().invoke(
        app, ["judge", *runs, "--root", str(root), "--name", "columns", "--strata", FACTUAL, "--json"]
    )
    assert done.exit_code == 0, done.output
    verdict = json.loads(done.stdout)
    assert verdict["strata_columns"] == [FACTUAL]
    assert [row["column"] for row in verdict["comparisons"][0]["strata"] if row["kind"] == "column"] == [FACTUAL] * 5
    assert verdict["registered"]["plan"]["strata_columns"] == [FACTUAL]


@pytest.mark.parametrize("more", [["--strata", FACTUAL], ["--strata-by", ENGAGEMENT]])
def test_a_column_of_a_pool_of_an_earlier_version_is_read_under_its_name_or_refused(tiny, tmp_path, monkeypatch, more):
    root = shutil.copytree(tiny.folder, tmp_path / "root")
    pools = Root(root).folders("pools")
    arguments = [f"top={tiny.runs[0]}", f"rand={tiny.runs[1]}", "--root", str(root), "--name", "old", *more]
    monkeypatch.setattr(code, "PREPARATION_VERSION", max(code.READ_VERSIONS) + 1)
    monkeypatch.setattr(handle, "READ_VERSIONS", ())
    refused = CliRunner().invoke(app, ["judge", *arguments])
    assert refused.exit_code == 1 and f"The pool {pools[0]} cannot be read further" in " ".join(refused.output.split())
    monkeypatch.undo()
    monkeypatch.setattr(code, "PREPARATION_VERSION", max(code.READ_VERSIONS) + 1)
    done = CliRunner().invoke(app, ["judge", *arguments])
    assert done.exit_code == 0, done.output
    assert Root(root).folders("pools") == pools, "no other pool was made"
