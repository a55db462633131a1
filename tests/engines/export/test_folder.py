"""Exports of a real run: what lies in the folder, what is refused, and that upstream's own code uses it."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tasks.engines.export.folder import build_export, export
from tasks.engines.nanochat import contract
from tasks.engines.trained import open_trained
from tasks.errors import DamagedError, InputError
from tasks.records.layout import RunFolder
from tasks.records.verdict import Verdict
from tasks.store.root import Root
from tests.trained import TinyRoot

safetensors = pytest.importorskip("safetensors.torch")

GENERATE = """
    import json, sys, torch
    from nanochat.checkpoint_manager import load_model
    from nanochat.engine import Engine
    model, tokenizer, meta = load_model("base", torch.device("cpu"), "eval", model_tag=sys.argv[1])
    tokens = tokenizer("The water cycle", prepend="<|bos|>")
    text, _ = Engine(model, tokenizer).generate_batch(tokens, num_samples=1, max_tokens=12, temperature=0)
    with torch.no_grad():
        logits = model(torch.tensor([tokens]))[0]
    print(json.dumps({"tokens": tokens, "text": text[0], "bpb": meta["val_bpb"], "logits": logits.tolist()}))
    """


@pytest.fixture
def root(tiny: TinyRoot) -> Root:
    return Root(tiny.folder)


def test_a_folder_for_transformers_has_all_and_a_card_of_the_ledger(root: Root, tiny: TinyRoot, tmp_path: Path) -> None:
    run = tiny.runs[0]
    folder = export(root, run, "hf", tmp_path / "model")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_fabrating.py",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1, "who may read one may read all"
    card = (folder / "README.md").read_text()
    _, facts = open_trained(root, run)
    (sentence,) = Verdict.read(root.path(f"verdicts/{tiny.verdict}/verdict.json")).sentences
    plain = card.replace("\\", "")
    for said in (
        run, tiny.arms[0], "Trained tokens | 4,096", f"{facts.bpb:.4f} bits per byte", '"share": 0.4',
        tiny.verdict, sentence[:60],
    ):  # fmt: skip
        assert said in plain, said


def test_plain_safetensors_hold_the_weights_as_they_are(root: Root, tiny: TinyRoot, tmp_path: Path) -> None:
    trained, _ = open_trained(root, tiny.runs[1])
    folder = export(root, tiny.runs[1], "safetensors", tmp_path)  # empty folders are taken
    found, state = safetensors.load_file(folder / "model.safetensors"), trained.state()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state.items())
    assert json.loads((folder / "config.json").read_text()) == asdict(trained.shape)
    assert (folder / "tokenizer.json").read_bytes() == (trained.tokenizer.path / "tokenizer.json").read_bytes()


def test_what_cannot_be_exported_is_said(root: Root, tiny: TinyRoot, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="full is there and not empty: name a new folder"):
        export(root, tiny.runs[0], "hf", tmp_path / "full")
    with pytest.raises(InputError, match="There is no run nobody"):
        export(root, "nobody", "hf", tmp_path / "new")
    unfinished = Root(tmp_path / "unfinished")
    for name in ("pools", "arms"):
        (unfinished.folder / name).symlink_to(tiny.folder / name)
    own, there = unfinished.path(RunFolder(tiny.runs[0]).folder), root.path(RunFolder(tiny.runs[0]).folder)
    own.mkdir(parents=True)
    (own / "job.json").write_bytes((there / "job.json").read_bytes())
    with pytest.raises(InputError, match="has not finished: train it to its end first"):
        export(unfinished, tiny.runs[0], "hf", tmp_path / "new")
    (own / "result").symlink_to(there / "result")
    with pytest.raises(InputError, match="has no checkpoint of step 8: it has none"):
        export(unfinished, tiny.runs[0], "hf", tmp_path / "new")
    checkpoint = own / "checkpoints" / "step_000008"
    checkpoint.mkdir(parents=True)
    for path in (there / "checkpoints" / "step_000008").iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    weights = bytearray((checkpoint / "model.pt").read_bytes())
    weights[-2000] ^= 1
    (checkpoint / "model.pt").write_bytes(weights)
    with pytest.raises(DamagedError, match="another SHA-256"):
        export(unfinished, tiny.runs[0], "hf", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_artifact_is_kept_until_there_is_another_verdict(tiny: TinyRoot, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    for part in ("pools", "arms"):
        (root.folder / part).symlink_to(tiny.folder / part)
    shutil.copytree(tiny.folder / "verdicts", root.folder / "verdicts")
    run, there = root.path(RunFolder(tiny.runs[0]).folder), tiny.folder / RunFolder(tiny.runs[0]).folder
    run.mkdir(parents=True)
    for name in ("job.json", "result", "checkpoints", "metrics.jsonl"):
        (run / name).symlink_to(there / name)
    made = build_export(root, tiny.runs[0], "hf")
    assert made.name == f"runs/{tiny.runs[0]}/export/hf" and not made.reused and made.facts["step"] == 8
    assert build_export(root, tiny.runs[0], "hf").reused
    shutil.rmtree(root.folder / "verdicts")
    again = build_export(root, tiny.runs[0], "hf")
    assert not again.reused and "no verdict yet" in (again.path / "README.md").read_text()


def test_nanochat_takes_several_models_of_one_tokenizer(root: Root, tiny: TinyRoot, tmp_path: Path) -> None:
    folders = [export(root, run, "nanochat", tmp_path) for run in tiny.runs]
    assert folders == [contract.checkpoint_folder(tmp_path, run) for run in tiny.runs]
    pickled = contract.tokenizer_folder(tmp_path) / "tokenizer.pkl"
    pickled.write_bytes(pickled.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"tokenizer\.pkl is another tokenizer"):
        export(root, tiny.runs[0], "nanochat", tmp_path)


def test_upstream_loads_and_generates(root: Root, tiny: TinyRoot, tmp_path: Path) -> None:
    source = os.environ.get("NANOCHAT_CHECKOUT") or pytest.skip("NANOCHAT_CHECKOUT names no checkout of nanochat")
    export(root, tiny.runs[0], "nanochat", tmp_path)
    environment = {**os.environ, contract.BASE_VARIABLE: str(tmp_path), "PYTHONPATH": ""}
    command = [os.environ.get("NANOCHAT_PYTHON", sys.executable), "-c", textwrap.dedent(GENERATE), tiny.runs[0]]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    trained, facts = open_trained(root, tiny.runs[0])
    model = tiny.model(trained)
    with torch.inference_mode():
        found = model(torch.tensor([theirs["tokens"]]))[0]
        torch.testing.assert_close(torch.tensor(theirs["logits"]), found, rtol=1e-5, atol=1e-5)
        for place in range(len(theirs["tokens"]), len(theirs["text"])):
            assert theirs["text"][place] == int(model(torch.tensor([theirs["text"][:place]]))[0, -1].argmax())
    assert theirs["bpb"] == pytest.approx(facts.bpb) and len(theirs["text"]) > len(theirs["tokens"])
