"""CORE by nanochat's own evaluation: on a tiny bundle of the same layout, with answers that can be checked by hand."""

import json
from pathlib import Path

import pytest
import torch

from tasks.engines.builtin.model import GPT
from tasks.engines.nanochat import contract, core
from tasks.errors import DamagedError, InputError, TrainingError
from tasks.records.job import Job
from tasks.records.result import ScoreFacts
from tasks.records.scaling import ModelShape
from tasks.spec import Arm, Experiment, Training
from tasks.store.root import Root

TRAINING = Training(depth=2, sequence_length=64, window_pattern="SL", precision="fp32", device="cpu", batch_tokens=512)
EXPERIMENT = Experiment(arm=Arm(name="arm"), training=TRAINING)
RUN = "arm-d2-s1-0123456789"
STEP = 40
YAML = """
icl_tasks:
- label: same_choices
  dataset_uri: one/same.jsonl
  num_fewshot: [0]
  icl_task_type: multiple_choice
- label: next_words
  dataset_uri: two/words.jsonl
  num_fewshot: [1]
  icl_task_type: language_modeling
- label: which_context
  dataset_uri: two/schema.jsonl
  num_fewshot: [0]
  icl_task_type: schema
"""
META = """Eval Task,Task Category,Task Type,#shots,#datapoints,Random baseline,Centered Metric?,Description
same_choices,x,multiple choice,0,10,50,,
next_words,x,language modeling,1,10,0,,
which_context,x,schema,0,10,50,,
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Three tasks, one of each type. The right continuations of `next_words` are none that a random model gives."""
    folder = tmp_path / "bundle"
    tasks = {
        "one/same.jsonl": [
            {"query": f"Is {i} a number?", "choices": [" yes", " no"], "gold": i % 2} for i in range(10)
        ],
        "two/words.jsonl": [
            {"context": f"After {i} comes", "continuation": f"number {i + 1} of ten"} for i in range(10)
        ],
        "two/schema.jsonl": [
            {"context_options": [f"The cat {i}", f"The dog {i}"], "continuation": "sat down", "gold": 0}
            for i in range(10)
        ],
    }
    for name, lines in tasks.items():
        path = folder / "eval_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "core.yaml").write_text(YAML)
    (folder / "eval_meta_data.csv").write_text(META)
    return folder


@pytest.fixture
def finished(root: Root, pool_id: str, arm_id: str) -> Root:
    """A run with its last checkpoint and its result."""
    model = GPT(ModelShape.of_depth(2, 64, "SL", 512))
    model.init_weights(1)

    def make(work) -> None:
        torch.save(model.state_dict(), work.temporary("model.pt"))
        work.finish("model.pt")
        work.temporary("state.json").write_text(json.dumps({"step": STEP, "rows": 320, "ranks": 1}))
        work.finish("state.json")

    root.build(f"runs/{RUN}/checkpoints/step_{STEP:06d}", make, spec={"run": RUN, "step": STEP})
    Job.of(root, EXPERIMENT, pool_id, arm_id).write(root.path(f"runs/{RUN}/job.json"))
    facts = ScoreFacts(bpb=2.0, bpb_by_decile=[2.0] * 10, steps=STEP, tokens=320 * 64, code="0").to_facts()
    root.build(f"runs/{RUN}/result", lambda work: work.facts.update(facts), spec=EXPERIMENT.identity())
    return root


@pytest.fixture
def home(upstream: Path, nanochat_python: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(contract.HOME_VARIABLE, str(upstream))
    monkeypatch.setenv(contract.PYTHON_VARIABLE, nanochat_python)
    monkeypatch.setenv(core.BUNDLE_VARIABLE, str(bundle))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_nanochat_answers_and_its_table_is_kept(finished: Root, home: None) -> None:
    made = core.evaluate(finished, RUN)
    tasks = made.facts["tasks"]
    assert list(tasks) == ["same_choices", "next_words", "which_context"]
    assert tasks["next_words"] == {"accuracy": 0.0, "centered": 0.0}
    for name in ("same_choices", "which_context"):
        assert tasks[name]["centered"] == pytest.approx(2 * tasks[name]["accuracy"] - 1)
    assert made.facts["core"] == pytest.approx(sum(task["centered"] for task in tasks.values()) / 3, abs=1e-5)
    assert "CORE metric" in (finished.path(f"runs/{RUN}") / core.LOG).read_text()
    assert core.evaluate(finished, RUN).reused
    assert not (finished.path(f"runs/{RUN}") / ".core").exists()


def test_a_failure_of_nanochat_names_its_last_line(finished: Root, home: None, bundle: Path) -> None:
    (bundle / "eval_data" / "two" / "schema.jsonl").unlink()
    with pytest.raises(TrainingError, match=r"ended with status 1 \(FileNotFoundError"):
        core.evaluate(finished, RUN)
    assert finished.find(f"runs/{RUN}/core") is None


def test_a_missing_bundle_says_where_it_belongs(
    tmp_path: Path, finished: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(core.BUNDLE_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"is not in .*nowhere \(no core.yaml\): unpack"):
        core.evaluate(finished, RUN)


def test_an_unfinished_run_is_refused(root: Root) -> None:
    with pytest.raises(InputError, match="has not finished"):
        core.evaluate(root, "nobody")


def test_other_questions_have_another_fingerprint(bundle: Path) -> None:
    before = core.fingerprint(bundle)
    path = bundle / "eval_data" / "one" / "same.jsonl"
    path.write_text(path.read_text().replace("yes", "yea"))
    assert core.fingerprint(bundle) != before


@pytest.mark.parametrize("text", ["", "Task, Accuracy, Centered\narc, 0.5, 0.2\n", "Task, Accuracy\narc, 0.5\n"])
def test_a_torn_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DamagedError, match="evaluate again"):
        core.read_table(tmp_path / "table.csv")
