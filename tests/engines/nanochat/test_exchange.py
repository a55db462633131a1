"""Checkpoints of the built-in trainer load in nanochat with equal logits, and the other way round."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.engines.builtin.answering import answer, open_questions
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.score import score_questions
from tasks.engines.inputs import open_inputs
from tasks.engines.nanochat import contract
from tasks.engines.nanochat.exchange import export_checkpoint, import_checkpoint
from tasks.engines.nanochat.weights import read_weights, write_weights
from tasks.errors import InputError
from tasks.records.job import Job
from tasks.records.questions import read_answers
from tasks.records.result import RunFacts
from tasks.records.scaling import ModelShape
from tasks.spec import Arm, Experiment, Questions, Training
from tasks.store.root import Root
from tasks.tokens.questions import encode_questions
from tests.small import random_model

TRAINING = Training(
    depth=2, sequence_length=64, packing="crop", window_pattern="SL", precision="fp32", device="cpu", batch_tokens=512
)
EXPERIMENT = Experiment(arm=Arm(name="arm"), training=TRAINING)
RUN = "arm-d2-s1-0123456789"
TOKENS = torch.arange(48)[None] * 7 % 500
LOGITS = """
    import json, sys, torch
    from nanochat.checkpoint_manager import load_model
    model, tokenizer, meta = load_model("base", torch.device("cpu"), "eval", model_tag=sys.argv[1])
    with torch.no_grad():
        logits = model(torch.arange(48)[None] * 7 % 500)[0]
    print(json.dumps({"logits": logits.tolist(), "val_bpb": meta["val_bpb"], "step": meta["step"]}))
    """


def logits_of(model: GPT) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS)[0]


@pytest.fixture
def ours(root: Root, pool_id: str, arm_id: str) -> GPT:
    """A model, and its checkpoint of step 40 as the built-in trainer leaves it."""
    model = random_model(ModelShape.of_depth(2, 64, "SL", 512), 1)

    def make(work) -> None:
        torch.save(model.state_dict(), work.temporary("model.pt"))
        work.finish("model.pt")
        work.temporary("state.json").write_text(json.dumps({"step": 40, "rows": 320, "ranks": 1}))
        work.finish("state.json")

    root.build(f"runs/{RUN}/checkpoints/step_000040", make, spec={"run": RUN, "step": 40})
    Job.of(root, EXPERIMENT, pool_id, arm_id).write(root.path(f"runs/{RUN}/job.json"))
    evaluated = {"step": 40, "kind": "eval", "bpb": 1.25}
    root.path(f"runs/{RUN}/metrics.jsonl").write_text(json.dumps(evaluated) + "\n")
    return model


def test_ours_is_whole_in_nanochats_layout(root: Root, ours: GPT, tmp_path: Path) -> None:
    folder = export_checkpoint(root, RUN, tmp_path / "base")
    state, meta = read_weights(folder, 40)
    assert meta["val_bpb"] == 1.25 and meta["model_config"] == asdict(ModelShape.of_depth(2, 64, "SL", 512))
    assert state.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(state[name], tensor)
    assert (contract.tokenizer_folder(tmp_path / "base") / "tokenizer.pkl").is_file()


def test_ours_gives_equal_logits_in_nanochat(
    root: Root, ours: GPT, tmp_path: Path, upstream: Path, run_upstream: Callable[..., dict]
) -> None:
    export_checkpoint(root, RUN, tmp_path / "base", tag="d2")
    theirs = run_upstream(upstream, tmp_path / "base", LOGITS, "d2")
    assert (theirs["step"], theirs["val_bpb"]) == (40, 1.25)
    torch.testing.assert_close(torch.tensor(theirs["logits"]), logits_of(ours), rtol=1e-5, atol=1e-5)


def test_nanochats_gives_equal_logits_in_ours(
    root: Root, tmp_path: Path, upstream: Path, run_upstream: Callable[..., dict]
) -> None:
    base = tmp_path / "base"
    theirs = run_upstream(
        upstream,
        base,
        """
        import json, sys, torch
        from nanochat.gpt import GPT, GPTConfig
        from nanochat.checkpoint_manager import save_checkpoint
        config = json.loads(sys.argv[1])
        torch.manual_seed(3)
        model = GPT(GPTConfig(**config))
        model.init_weights()
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        save_checkpoint(sys.argv[2], 12, model.state_dict(), None, {"step": 12, "model_config": config})
        print(json.dumps({"logits": model(torch.arange(48)[None] * 7 % 500)[0].tolist()}))
        """,
        json.dumps(asdict(ModelShape.of_depth(2, 64, "SL", 512))),
        str(contract.checkpoint_folder(base, "theirs")),
    )
    folder = contract.checkpoint_folder(base, "theirs")
    imported = import_checkpoint(root, RUN, folder, 12, {"packed": "0"}, rows=96)
    model = GPT(ModelShape.of_depth(2, 64, "SL", 512))
    model.load_state_dict(torch.load(imported.path / "model.pt", weights_only=True))
    torch.testing.assert_close(logits_of(model), torch.tensor(theirs["logits"]), rtol=1e-5, atol=1e-5)
    assert json.loads((imported.path / "state.json").read_text())["step"] == 12


def test_there_and_back_is_the_same(root: Root, ours: GPT, tmp_path: Path) -> None:
    folder = export_checkpoint(root, RUN, tmp_path / "base", step=40)
    imported = import_checkpoint(root, "other", folder, 40, {}, rows=320)
    again = torch.load(imported.path / "model.pt", weights_only=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())


def test_a_run_of_nanochat_is_asked_questions_by_our_model(
    root: Root, pool_id: str, arm_id: str, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"engine": "nanochat"})
    job = Job.of(root, Experiment(arm=EXPERIMENT.arm, training=training), pool_id, arm_id)
    job.write(root.path(f"runs/{job.run}/job.json"))
    inputs, model = open_inputs(root, job), random_model(ModelShape.of_depth(2, 64, "SL", 512), 4)
    write_weights(tmp_path, 12, model.state_dict(), model.config, {})
    import_checkpoint(root, job.run, tmp_path, 12, inputs.by_role, rows=96)
    facts = {field.name: 0 for field in fields(RunFacts)} | {"steps": 12, "format": 1}
    root.build(job.result, lambda work: work.facts.update(facts), spec=job.experiment.identity(), inputs=inputs.by_role)
    encoded = encode_questions(root, pool_id, Questions(questions=40))
    answers = read_answers(score_questions(root, job.run, encoded.path.name).path / "answers.parquet")
    with torch.no_grad():
        expected = answer(
            lambda x, y: model(x, y, reduction="none"),
            open_questions(encoded),
            64,
            4_096,
            World(0, 1, torch.device("cpu")),
        )
    assert len(answers) == 40
    np.testing.assert_allclose(answers["nats"].to_numpy(), expected["nats"].to_numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("run", "step", "words"),
    [("nobody", None, "no run nobody"), (RUN, 41, r"no checkpoint of step 41: it has 40")],
)
def test_what_is_not_there_is_named(
    root: Root, ours: GPT, tmp_path: Path, run: str, step: int | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        export_checkpoint(root, run, tmp_path / "base", step)


def test_weights_of_another_depth_are_refused(root: Root, tmp_path: Path) -> None:
    config = ModelShape.of_depth(3, 64, "SL", 512)
    write_weights(
        tmp_path,
        1,
        random_model(ModelShape.of_depth(2, 64, "SL", 512), 2).state_dict(),
        ModelShape.of_depth(2, 64, "SL", 512),
        {},
    )
    meta = tmp_path / contract.meta_file(1)
    meta.write_text(meta.read_text().replace('"n_layer": 2', f'"n_layer": {config.n_layer}'))
    with pytest.raises(InputError, match="another version of nanochat's model"):
        import_checkpoint(root, RUN, tmp_path, 1, {}, rows=1)
