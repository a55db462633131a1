"""lm-eval scores an exported run on a task of its own, offline, by our model's likelihoods."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.engines.export.folder import export
from tasks.engines.trained import open_trained
from tasks.store.root import Root
from tasks.tokens.tokenizer import load_tokenizer
from tests.trained import TinyRoot

QUESTIONS = [
    {"question": "Return the string", "choices": [" self", " water"], "answer": 0},
    {"question": "If it is not there", "choices": [" rain", " raise"], "answer": 1},
    {"question": "The default is", "choices": [" None", " sea", " a much longer answer than that"], "answer": 0},
]
TASK = """
task: local
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
def test_lm_eval_has_our_likelihoods(tiny: TinyRoot, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -r requirements-eval.lock")
    root = Root(tiny.folder)
    folder = export(root, tiny.runs[0], "hf", tmp_path / "model")
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    (tmp_path / "local.yaml").write_text(TASK.replace("FILE", str(tmp_path / "questions.jsonl")))
    model = f"pretrained={folder},trust_remote_code=True,add_bos_token=True"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", model, "--tasks", "local"]
    command += ["--include_path", str(tmp_path), "--device", "cpu", "--batch_size", "2", "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "--output_path", str(tmp_path / "out")],
        env=os.environ | offline, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = tmp_path.glob("out/**/results_*.json")
    (samples,) = tmp_path.glob("out/**/samples_*.jsonl")
    trained, _ = open_trained(root, tiny.runs[0])
    ours, tokenizer = tiny.model(trained), load_tokenizer(trained.tokenizer.path)

    def likelihood(question: str, choice: str) -> float:
        before, whole = ([tokenizer.bos, *tokenizer.encode(text)] for text in (question, question + choice))
        with torch.inference_mode():
            expected = ours(torch.tensor([whole]))[0].log_softmax(-1)
        return sum(float(expected[place - 1, whole[place]]) for place in range(len(before), len(whole)))

    right = 0
    for line in sorted(map(json.loads, samples.read_text().splitlines()), key=lambda line: line["doc_id"]):
        asked = QUESTIONS[line["doc_id"]]
        wanted = [likelihood(asked["question"], choice) for choice in asked["choices"]]
        assert [float(found[0]) for found in line["filtered_resps"]] == pytest.approx(wanted, abs=1e-3)
        right += wanted.index(max(wanted)) == asked["answer"]
    assert json.loads(results.read_text())["results"]["local"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
