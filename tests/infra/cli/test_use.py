"""`fabrating write` and `export`, on a run that was really trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.cli.main import app
from tests.trained import TinyRoot


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_write_continues_the_prompt(tiny: TinyRoot) -> None:
    given = ("write", tiny.runs[0], "The water cycle", "--tokens", 12, "--root", tiny.folder)
    found = run(*given)
    assert found.exit_code == 0, found.output
    assert run("write", tiny.runs[0][-10:], *given[2:]).stdout == found.stdout, "a part of its name is enough"
    assert found.stdout.startswith("The water cycle") and len(found.stdout) > len("The water cycle\n")
    said = json.loads(run(*given, "--json").stdout)
    assert found.stdout == f"The water cycle{said['text']}\n" and said["run"] == tiny.runs[0]
    cold = [json.loads(run(*given, "--temperature", 0, "--seed", seed, "--json").stdout)["text"] for seed in (1, 2)]
    narrow = json.loads(run(*given, "--top-k", 1, "--top-p", 0.5, "--json").stdout)["text"]
    assert cold[0] == cold[1] == narrow


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody", "x"), "There is no run 'nobody' under"),
        (("RUN", ""), "The prompt is empty: give the beginning of a text."),
        (("RUN", "x", "--temperature", "-1"), "The temperature is -1: give 0 (the likeliest token) to 10."),
        (("RUN", "x", "--top-k", "0"), "top_k is 0: give a number of tokens"),
        (("RUN", "x", "--top-p", "2"), "top_p is 2: give a probability"),
        (("RUN", "x", "--tokens", "64"), "are more than the 64 that the model was trained to read"),
        (("RUN", "x", "--device", "tpu"), "The device is 'tpu': give auto, cpu or cuda."),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tiny: TinyRoot, arguments: tuple[str, ...], said: str) -> None:
    given = [tiny.runs[0] if argument == "RUN" else argument for argument in arguments]
    found = run("write", *given, "--root", tiny.folder)
    assert found.exit_code == 1
    assert said in found.stderr and found.stderr.count("\n") == 1 and not found.stdout


def test_export_says_where_it_lies(tiny: TinyRoot, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    found = run(
        "export", tiny.runs[0][-10:], "--to", "safetensors", tmp_path / "model", "--root", tiny.folder, "--json"
    )
    assert json.loads(found.stdout) == {
        "export": str(tmp_path / "model"), "card": str(tmp_path / "model" / "README.md"),
    }  # fmt: skip
    again = run("export", tiny.runs[0], tmp_path / "model", "--root", tiny.folder)
    assert again.exit_code == 1 and "is there and not empty" in again.stderr
    other = run("export", tiny.runs[0], "--to", "onnx", tmp_path / "new", "--root", tiny.folder)
    assert "There is no export to 'onnx': give --to hf, nanochat or safetensors." in other.stderr
