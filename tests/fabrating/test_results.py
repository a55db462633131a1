"""`import fabrating`: a root as tables, records and models."""

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import fabrating
from fabrating.results import _pieces
from infra.local.deploy import PROJECT
from tasks.engines.trained import open_trained
from tasks.records.scores import SCHEMA, summarize
from tasks.store.root import Root
from tests.planted import Bench
from tests.trained import TinyRoot


@pytest.fixture
def results(tiny: TinyRoot) -> fabrating.Results:
    return fabrating.open(tiny.folder)


def test_names_and_ledger_are_those_of_the_root(results: fabrating.Results, tiny: TinyRoot) -> None:
    assert results.names("runs") == sorted(tiny.runs) and results.names("arms") == sorted(tiny.arms)
    assert results.names("verdicts") == [tiny.verdict] and len(results.names("pools")) == 1
    assert results.names("ladders") == []
    assert [entry.run for entry in results.runs()] == list(reversed(tiny.runs))
    assert all(entry.state == "completed" and entry.tokens == 4096 for entry in results.runs())


def test_scores_are_one_row_a_run_and_document(results: fabrating.Results, tiny: TinyRoot) -> None:
    table = results.scores(tiny.runs)
    assert table.column_names == ["run", "arm", "seed", *SCHEMA.names, "bits_per_byte"]
    frame = table.to_pandas()
    assert list(frame.run.unique()) == list(tiny.runs) and list(frame.arm.unique()) == ["top", "rand"]
    for entry in results.runs():
        own = frame[frame.run == entry.run]
        assert own.nats.sum() / math.log(2) / own.bytes.sum() == pytest.approx(entry.bpb)
        assert (own.bits_per_byte * own.bytes * math.log(2)).sum() == pytest.approx(own.nats.sum())
    assert results.scores(tiny.runs[0]).num_rows * 2 == len(frame)
    assert summarize(results.scores(tiny.runs[1]))["bpb"] == pytest.approx(results.runs()[0].bpb)


def test_a_verdict_by_either_name(results: fabrating.Results, tiny: TinyRoot) -> None:
    found = results.verdict(tiny.verdict)
    assert found == results.verdict("tiny") and found.runs == list(tiny.runs)


def test_an_arm_says_what_it_took(results: fabrating.Results, tiny: TinyRoot) -> None:
    arm = results.arm("top")
    assert arm == results.arm(tiny.arms[0]) and arm.selection.share == 0.4 and arm.pool == results.names("pools")[0]
    assert arm.documents().num_rows == arm.facts["documents"] > 10


def test_a_loaded_model_computes_and_writes(results: fabrating.Results, tiny: TinyRoot) -> None:
    model, tokenizer = loaded = results.load(tiny.runs[0], "cpu")
    ids = [tokenizer.bos, *tokenizer.encode("The water cycle")]
    trained, _ = open_trained(Root(tiny.folder), tiny.runs[0])
    torch.testing.assert_close(model(torch.tensor([ids])), tiny.model(trained)(torch.tensor([ids])))
    pieces = list(loaded.write("The water cycle", 20, seed=3))
    assert len(pieces) > 1 and "".join(pieces) == "".join(loaded.write("The water cycle", 20, seed=3))


def test_text_comes_in_whole_characters(results: fabrating.Results, tiny: TinyRoot) -> None:
    _, tokenizer = results.load(tiny.runs[0], "cpu")
    text = "日本 é 🌧 water"
    pieces = list(_pieces(tokenizer, iter(tokenizer.encode(text))))
    assert "".join(pieces) == text and "日" in pieces
    cut = tokenizer.encode("water 日")[:-1]
    assert "".join(_pieces(tokenizer, iter(cut))) == "water \ufffd"


def test_to_open_a_folder_makes_none(tmp_path: Path) -> None:
    with pytest.raises(fabrating.InputError, match=r"There is no root .*none: check the name of the folder"):
        fabrating.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda results: results.names("models"), "There are no names of 'models': ask for pools, arms, runs, verd"),
        (lambda results: results.scores([]), "No runs are named"),
        (
            lambda results: results.scores("nobody"),
            "The run nobody has no scores under .*: it is not there, or has not finished",
        ),
        (
            lambda results: results.scores(results.runs()[0].run, "wiki"),
            "The run rand.* has no scores on wiki under .*, or was not scored on them",
        ),
        (lambda results: results.verdict("nothing"), "There is no verdict 'nothing' .*: there are tiny-"),
        (lambda results: results.arm("best"), "There is no arm 'best' under .*: give one of rand-.*, top-"),
        (lambda results: results.load("nobody"), "There is no run nobody"),
        (lambda results: results.load(results.runs()[0].run, "cpu").write(" \n"), "The prompt is empty"),
    ],
)
def test_bad_input_is_one_sentence(
    results: fabrating.Results, ask: Callable[[fabrating.Results], object], said: str
) -> None:
    with pytest.raises(fabrating.InputError, match=said) as found:
        ask(results)
    assert "\n" not in str(found.value)


def test_a_remote_root_is_read_where_it_lies(azure: str, bench: Bench, tmp_path: Path) -> None:
    """Of a finished run the scores alone come to this machine."""
    run = bench.run("top16", 1)
    remote = Root(f"az://{azure}/root", tmp_path / "first")
    folder = remote.path(f"runs/{run}/result")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(bench.root.path(f"runs/{run}/result"))
    remote.mirror(f"runs/{run}/result")
    found = fabrating.open(f"az://{azure}/root", tmp_path / "second")
    assert found.names("runs") == [run]
    scores = pq.read_table(folder / "scores.parquet")
    assert found.scores([run]).select(["document", "nats"]) == scores.select(["document", "nats"])
    assert {path.name for path in (tmp_path / "second").rglob("*") if path.is_file()} == {"scores.parquet"}


@pytest.mark.slow
def test_types_are_known_to_who_imports_it(tmp_path: Path) -> None:
    """mypy in strict mode sees the types of the public names, from outside the project."""
    program = """
        import fabrating

        results = fabrating.open("root")
        reveal_type(results.runs()[0].bpb)
        reveal_type(results.verdict("v").comparisons[0].better)
        reveal_type(results.load("r").write("p"))
        results.scores(1)
        """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, "--config-file", "/dev/null", "program.py"], cwd=tmp_path, env={"MYPYPATH": str(PROJECT), "PATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    said = [line.split(":", 2)[2].strip() for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert [line for line in said if "Revealed" in line] == [
        'note: Revealed type is "float | None"',
        'note: Revealed type is "str | None"',
        'note: Revealed type is "typing.Iterator[str]"',
    ], done.stdout
    assert any('incompatible type "int"' in line for line in said)
