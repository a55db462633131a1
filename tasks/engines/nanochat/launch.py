"""What nanochat's ranks are started with: command line, environment, settings of the overlay.

The overlay saves a checkpoint at SIGTERM, which a rank also gets when its launcher dies.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.environment import Environment, child_environment
from tasks.engines.nanochat.plan import UpstreamPlan
from tasks.spec import Experiment
from tasks.store.artifact import write_atomic

OVERLAY = Path(__file__).with_name("overlay.py")
SETTINGS_VARIABLE = "FABRATING_OVERLAY"
DTYPES = {"bf16": "bfloat16", "fp8": "bfloat16", "fp32": "float32"}


def command(
    environment: Environment,
    experiment: Experiment,
    plan: UpstreamPlan,
    run: str,
    *,
    cpu: bool,
    holdout_tokens: int,
    resume: int,
) -> list[str]:
    """The command line of one rank. `resume`: the step to resume from, 0 for none."""
    training = experiment.training
    options: dict[str, Any] = {
        "--run": "dummy",  # no W&B run of its own: our metrics are forwarded under the run's one id
        "--device-type": "cpu" if cpu else "cuda",
        "--depth": training.depth,
        "--max-seq-len": training.sequence_length,
        "--window-pattern": training.window_pattern,
        "--num-iterations": plan.iterations,
        "--target-param-data-ratio": f"{plan.ratio:.6g}",
        "--device-batch-size": plan.micro_rows,
        "--total-batch-size": plan.batch_tokens,
        "--eval-every": training.eval_every,
        "--eval-tokens": holdout_tokens,
        "--core-metric-every": -1,
        "--sample-every": -1,
        "--save-every": training.save_every,
        "--model-tag": run,
    }
    if resume:
        options["--resume-from-step"] = resume
    words = [f"{name}={value}" for name, value in options.items()]
    return [
        str(environment.python),
        str(OVERLAY),
        contract.TRAIN_SCRIPT,
        *words,
        *(["--fp8"] if training.precision == "fp8" else []),
    ]


def write_settings(
    path: Path,
    experiment: Experiment,
    plan: UpstreamPlan,
    *,
    shards: Sequence[Path],
    evaluation: Path,
    strata: Path,
    bos: int,
    cpu: bool,
) -> None:
    """The overlay's settings: the last of `shards` is the holdout's."""
    settings = {
        "shards": [str(shard) for shard in shards[:-1]],
        "validation": str(shards[-1]),
        "evaluation": str(evaluation),
        "strata": str(strata),
        "bos": bos,
        "rows": plan.micro_rows,
        "sequence": experiment.training.sequence_length,
        "seed": experiment.seed_of("init"),
        "compile": experiment.training.compile and not cpu,
        "state": str(path.parent),
    }
    write_atomic(path, json.dumps(settings, indent=1))


def variables(
    base: Path, settings: Path, compiled: Path, precision: str, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of every rank. `compiled`: where its kernels are kept, unless TORCHINDUCTOR_CACHE_DIR is set."""
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(compiled / "nanochat")}
    return (
        kept
        | child_environment(inherited)
        | {
            contract.BASE_VARIABLE: str(base),
            contract.DTYPE_VARIABLE: DTYPES[precision],
            SETTINGS_VARIABLE: str(settings),
            "PYTHONUNBUFFERED": "1",
        }
    )
