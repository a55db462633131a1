"""Iterations, batch and ratio of a run, and the command line that carries them."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.engines.builtin.model import config_for
from tasks.engines.builtin.schedule import plan_training
from tasks.engines.nanochat.check import Identity
from tasks.engines.nanochat.contract import KNOWN, OPTIONS, PINNED, ModelConfig
from tasks.engines.nanochat.environment import Environment, TorchGpu, child_environment, find_environment
from tasks.engines.nanochat.launch import command, variables
from tasks.engines.nanochat.plan import memory_bytes, plan_run
from tasks.errors import InputError
from tasks.spec import Experiment, Training

H100 = TorchGpu("NVIDIA H100 80GB HBM3", 85_000_000_000, "0", (9, 0))
OLD_GPU = TorchGpu("Tesla V100", 34_000_000_000, "1", (7, 0))


def environment(*gpus: TorchGpu, known=PINNED) -> Environment:
    return Environment(
        Path("/checkout"), Path("/checkout/.venv/bin/python"), Identity(None, known.code, known), "2.9.1", gpus
    )


@settings(max_examples=15, deadline=None)
@given(
    depth=st.integers(1, 32),
    rows=st.integers(1_000, 10_000_000),
    length=st.sampled_from([64, 512, 2048]),
    tokens=st.none() | st.integers(1, 10**10),
    batch=st.none() | st.sampled_from([65_536, 524_288]),
)
def test_both_engines_plan_the_same(depth: int, rows: int, length: int, tokens: int | None, batch: int | None) -> None:
    assume(tokens is None or tokens <= rows * length)
    training = Training(depth=depth, sequence_length=length, tokens=tokens, batch_tokens=batch, micro_batch=1)
    config = config_for(depth, length, training.window_pattern, 32_768)
    try:
        theirs = plan_training(config, tokens, batch, rows)
    except InputError:
        with pytest.raises(InputError):
            plan_run(training, rows, 32_768, ())
        return
    ours = plan_run(training, rows, 32_768, ())
    assert (ours.batch_tokens, ours.iterations, ours.tokens) == (theirs.batch_tokens, theirs.iterations, theirs.tokens)
    assert ours.ratio == pytest.approx(theirs.tokens / theirs.scaling_parameters)


def test_the_measured_run_is_planned_as_measured() -> None:
    training = Training(engine="nanochat", depth=20, batch_tokens=524_288)
    plan = plan_run(training, 3_000 * 256 + 5, 32_768, (H100,))
    assert (plan.iterations, plan.micro_rows, plan.rows_left) == (3_000, 32, 5)
    measured = 71.9 * 2**30
    assert memory_bytes(plan.config, 32, 1) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 2_000_000}, "take a larger arm"),
        ({"batch_tokens": 100_000}, "no multiple"),
        ({"batch_tokens": 2048, "gpus": 8}, "no multiple"),
        ({"batch_tokens": 1_048_576}, "does not fill one batch"),
        ({"batch_tokens": 16_384, "micro_batch": 3}, "choose a divisor"),
        ({"depth": 64, "batch_tokens": 16_384}, "lower depth"),
        ({"deterministic": True}, "leave it out"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_run(Training(engine="nanochat", **changes), 500, 32_768, (H100,))


def test_the_command_line_says_what_the_plan_says() -> None:
    experiment = Experiment(training=Training(engine="nanochat", precision="fp8", batch_tokens=524_288, save_every=100))
    plan = plan_run(experiment.training, 10_000, 32_768, (H100,))
    words = command(environment(H100), experiment, plan, "run-1", cpu=False, holdout_tokens=1_000, resume=200)
    options = dict(word.split("=", 1) for word in words[3:] if "=" in word)
    assert options["--num-iterations"] == str(plan.iterations) == "39"
    assert float(options["--target-param-data-ratio"]) == pytest.approx(plan.tokens / 435_160_240, rel=1e-5)
    assert options["--total-batch-size"] == "524288" and options["--device-batch-size"] == "32"
    assert options["--resume-from-step"] == "200" and options["--save-every"] == "100"
    assert options["--core-metric-every"] == options["--sample-every"] == "-1"
    assert (options["--run"], options["--model-tag"]) == ("dummy", "run-1")
    assert words[-1] == "--fp8"
    assert set(options) == set(OPTIONS)


def test_without_a_checkpoint_and_fp8_nothing_is_said_of_them() -> None:
    experiment = Experiment(training=Training(precision="fp32", batch_tokens=4096, depth=2))
    plan = plan_run(experiment.training, 10, 512, ())
    words = command(environment(), experiment, plan, "run-1", cpu=True, holdout_tokens=1_000, resume=0)
    assert "--device-type=cpu" in words
    assert not [word for word in words if word.startswith(("--resume", "--fp8"))]


def test_ranks_see_no_secrets_of_the_store_and_none_of_our_packages() -> None:
    inherited = {"AZURE_STORAGE_KEY": "secret", "PYTHONPATH": "/ours", "WANDB_API_KEY": "theirs", "PATH": "/bin"}
    given_to_ranks = variables(Path("/base"), Path("/base/settings.json"), "bf16", inherited)
    assert "AZURE_STORAGE_KEY" not in given_to_ranks and "PYTHONPATH" not in given_to_ranks
    assert given_to_ranks["WANDB_API_KEY"] == "theirs" and given_to_ranks["NANOCHAT_DTYPE"] == "bfloat16"
    assert child_environment({"FABRATING_X": "1", "VIRTUAL_ENV": "/v"}) == {}


def test_devices_are_those_that_are_there() -> None:
    host = environment(H100, H100)
    assert host.devices("auto", 2, "fp8") == (H100, H100)
    assert host.devices("cpu", 2, "fp32") == environment().devices("auto", 1, "fp32") == ()


@pytest.mark.parametrize(
    ("host", "asked", "words"),
    [
        (environment(H100), ("auto", 2, "bf16"), "gpus is 2, but .* sees 1"),
        (environment(), ("cuda", 1, "bf16"), "gpus is 1, but .* sees 0"),
        (environment(), ("auto", 1, "bf16"), "on a CPU in fp32 only"),
        (environment(OLD_GPU), ("auto", 1, "bf16"), "Tesla V100 does not have"),
        (environment(H100, known=KNOWN[1]), ("auto", 1, "fp32"), "does not offer on a GPU"),
        (
            environment(H100, known=KNOWN[2]),
            ("auto", 1, "fp8"),
            "fp8, which nanochat 1ddaad1c1c does not offer: set bf16",
        ),
    ],
)
def test_devices_that_are_not_there_are_named(host: Environment, asked: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        host.devices(*asked)


def test_the_environment_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"FABRATING_NANOCHAT_HOME is not set.*engine to builtin"):
        find_environment(tmp_path, {})
    with pytest.raises(InputError, match="no checkout of nanochat"):
        find_environment(tmp_path, {"FABRATING_NANOCHAT_HOME": str(tmp_path)})


def test_a_missing_or_unfit_interpreter_is_named(tmp_path: Path, upstream: Path) -> None:
    home = {"FABRATING_NANOCHAT_HOME": str(upstream)}
    with pytest.raises(InputError, match="nowhere/python does not exist: run `uv sync"):
        find_environment(tmp_path, {**home, "FABRATING_NANOCHAT_PYTHON": "/nowhere/python"})
    with pytest.raises(InputError, match=r"cannot be imported .*No module named 'torch'"):
        find_environment(tmp_path, {**home, "FABRATING_NANOCHAT_PYTHON": "/usr/bin/python3"})


def test_of_depth_is_the_built_in_trainers() -> None:
    for depth in range(1, 40):
        ours, theirs = ModelConfig.of_depth(depth, 32_768, 2_048, "SSSL"), config_for(depth)
        assert (ours.n_embd, ours.n_head, ours.n_layer) == (theirs.n_embd, theirs.n_head, theirs.n_layer)
