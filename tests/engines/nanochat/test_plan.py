"""Iterations, batch and ratio of a run, and the command line that carries them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.engines.entry import check
from tasks.engines.nanochat.check import Identity
from tasks.engines.nanochat.contract import KNOWN, OPTIONS, PINNED
from tasks.engines.nanochat.environment import Environment, TorchGpu, child_environment, find_environment
from tasks.engines.nanochat.launch import command, variables
from tasks.engines.nanochat.plan import memory_bytes, plan_run
from tasks.errors import InputError
from tasks.records.scaling import ModelShape, flops_per_token, parameter_counts
from tasks.spec import Arm, Experiment, Training

H100 = TorchGpu("NVIDIA H100 80GB HBM3", 85_000_000_000, "0", (9, 0))
OLD_GPU = TorchGpu("Tesla V100", 34_000_000_000, "1", (7, 0))


def environment(*gpus: TorchGpu, known=PINNED) -> Environment:
    return Environment(
        Path("/checkout"), Path("/checkout/.venv/bin/python"), Identity(None, known.code, known), "2.9.1", gpus
    )


def test_the_measured_run_is_planned_as_measured() -> None:
    training = Training(engine="nanochat", packing="crop", depth=20, batch_tokens=524_288)
    plan = plan_run(training, 3_000 * 256 + 5, 32_768, (H100,))
    assert (plan.iterations, plan.micro_rows, plan.rows_left) == (3_000, 32, 5)
    measured = 71.9 * 2**30
    assert memory_bytes(plan.shape, 32, 1) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 2_000_000}, "take a larger arm"),
        ({"batch_tokens": 100_000}, "not a multiple"),
        ({"batch_tokens": 2048, "gpus": 8}, "8 processes cannot share equally"),
        ({"batch_tokens": 1_048_576}, "does not fill one batch"),
        ({"batch_tokens": 16_384, "micro_batch": 3}, "choose a divisor"),
        ({"depth": 64, "batch_tokens": 16_384}, "lower depth"),
        ({"deterministic": True}, "set it to false"),
        ({"attention": "fa4"}, "nanochat picks its own: set it to auto"),
        ({"packing": "split"}, "packing is split, but nanochat packs by itself and crops: set it to crop"),
        ({"recipe": "quiet"}, "recipe is quiet, but nanochat trains by its own: set it to upstream"),
        (
            {"tokens": 900_000, "batch_tokens": 16_384},
            "budget is 900,000 tokens of an arm that holds 1,024,000, but nanochat trains whole arms",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_run(Training(**{"engine": "nanochat", "packing": "crop", **changes}), 500, 32_768, (H100,))


def test_a_budget_that_leaves_no_whole_batch_is_the_whole_arm() -> None:
    training = Training(engine="nanochat", packing="crop", tokens=500 * 2048 - 5_000, batch_tokens=16_384)
    assert plan_run(training, 500, 32_768, (H100,)).iterations == 500 * 2048 // 16_384


def test_the_door_refuses_by_parameters_alone_and_by_the_packed_arm() -> None:
    check(Training(), [Arm(epochs=2)], {"rows": 1, "vocab_size": 512})  # the built-in trainer has its own checks
    with pytest.raises(InputError, match="set it to crop, or engine to builtin"):
        check(Training(engine="nanochat"), [])
    cropped = Training(engine="nanochat", packing="crop", tokens=900_000, batch_tokens=16_384)
    check(cropped, [Arm()])
    with pytest.raises(InputError, match="arm top16 has 2 epochs, but nanochat reads an arm once: set epochs to 1"):
        check(cropped, [Arm(), Arm(epochs=2)])
    with pytest.raises(InputError, match="nanochat trains whole arms"):
        check(cropped, [], {"rows": 500, "vocab_size": 32_768})


def test_the_command_line_says_what_the_plan_says() -> None:
    experiment = Experiment(
        training=Training(engine="nanochat", packing="crop", precision="fp8", batch_tokens=524_288, save_every=100)
    )
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
    experiment = Experiment(training=Training(packing="crop", precision="fp32", batch_tokens=4096, depth=2))
    plan = plan_run(experiment.training, 10, 512, ())
    words = command(environment(), experiment, plan, "run-1", cpu=True, holdout_tokens=1_000, resume=0)
    assert "--device-type=cpu" in words
    assert not [word for word in words if word.startswith(("--resume", "--fp8"))]


def test_ranks_see_no_secrets_of_the_store_and_none_of_our_packages() -> None:
    inherited = {"AZURE_STORAGE_KEY": "secret", "PYTHONPATH": "/ours", "WANDB_API_KEY": "theirs", "PATH": "/bin"}
    given_to_ranks = variables(Path("/base"), Path("/base/settings.json"), Path("/compiled"), "bf16", inherited)
    assert "AZURE_STORAGE_KEY" not in given_to_ranks and "PYTHONPATH" not in given_to_ranks
    assert given_to_ranks["WANDB_API_KEY"] == "theirs" and given_to_ranks["NANOCHAT_DTYPE"] == "bfloat16"
    assert given_to_ranks["TORCHINDUCTOR_CACHE_DIR"] == "/compiled/nanochat"
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


def test_nanochat_counts_the_same_parameters_and_flops(
    tmp_path: Path, upstream: Path, run_upstream: Callable[..., dict]
) -> None:
    shapes = [ModelShape.of_depth(depth, 2048, "SSSL") for depth in range(1, 33)]
    theirs = run_upstream(
        upstream,
        tmp_path,
        """
        import json, sys, torch
        from nanochat.gpt import GPT, GPTConfig
        found = []
        for config in json.loads(sys.argv[1]):
            with torch.device("meta"):
                model = GPT(GPTConfig(**config))
            counts = model.num_scaling_params()
            scaling = counts["transformer_matrices"] + counts["lm_head"]
            found.append([counts["total"], scaling, model.estimate_flops()])
        print(json.dumps({"found": found}))
        """,
        json.dumps([asdict(shape) for shape in shapes]),
    )
    counts = [parameter_counts(shape) for shape in shapes]
    ours = [[count.total, count.scaling, flops_per_token(shape)] for count, shape in zip(counts, shapes, strict=True)]
    assert theirs["found"] == ours
