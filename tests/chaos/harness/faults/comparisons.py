"""A comparison whose runs share one trainer process, with a run that fails, one that a person cancels, and all cancelled at once."""

import contextlib
import hashlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tasks.engines.builtin.checkpoint import load_tensors
from tasks.records.metrics import read_metrics
from tests.chaos.harness.arm import ARM, DATA, TRAIN
from tests.chaos.harness.faults.kind import Harm, kind, send
from tests.engines.builtin.conftest import spoil_weights

STEPS = 200
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
CANCELLING = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}


@kind(
    "in a comparison one run's trainer is killed and its weights are no numbers, one is cancelled; then all are, then all go on"
)
def comparison_disturbed(harm: Harm) -> None:
    """What each run ends with is compared with the same run trained alone, in a process of its own."""
    harm.run.wait("the end", lambda: (harm.run.state or {}).get("type") == "COMPLETED", 240)
    root = harm.run.root.with_name(f"{harm.run.root.name}-compared")
    arms = [ARM | {"order": "shuffled"}, ARM | {"name": "rand", "select": "random", "order": "shuffled"}]
    data = {**DATA, "tokenizer_characters": 200_000, "source": harm.run.source}
    asked = {
        "name": "chaos",
        "arms": arms,
        "data": data,
        "train": TRAIN | {"tokens": STEPS * TRAIN["batch_tokens"]},
        "root": str(root),
        "replicates": 2,
    }

    first = harm.server.start("compare/file", asked)
    spoiled = _trained(harm, root, harm.random.randint(12, STEPS // 2))
    harm.strike(f"step {_step(spoiled)} of {spoiled.name} and ")
    _spoil(spoiled)
    cancelled = _trained(harm, root, harm.random.randint(1, STEPS // 2), but=spoiled)
    harm.moment += f"step {_step(cancelled)} of {cancelled.name}"
    run = _flow_run(cancelled)
    with _held(cancelled):  # it must not come to its end before it hears of it
        harm.server.ask("POST", f"/flow_runs/{run}/set_state", CANCELLING, 30)
        harm.run.wait("the cancellation", lambda: harm.ended(run) == "CANCELLED", 120)
    harm.run.wait("its end", lambda: harm.ended(first) in FINAL, 400, 0.5)
    ends = {each["state"]["type"]: each for each in _below(harm, first)}
    kinds = sorted(each["state"]["type"] for each in _below(harm, first))
    if kinds.count("COMPLETED") < 3 or set(kinds) != {"COMPLETED", "FAILED", "CANCELLED"}:  # prepare is one
        raise AssertionError(f"the runs ended {kinds}")
    if "is nan" not in ends["FAILED"]["state"]["message"] or harm.ended(first) != "FAILED":
        raise AssertionError(f"{harm.ended(first)}: {ends['FAILED']['state']['message']}")
    time.sleep(45 if harm.rig.quick else 150)  # the reaper looks twice and leaves it alone
    if harm.ended(first) != "FAILED":
        raise AssertionError("a comparison with a run that a person cancelled was set going again")

    shutil.rmtree(spoiled / "checkpoints")
    second = harm.server.start("compare/file", asked)
    with _held(_trained(harm, root, 1)):
        below = [each["id"] for each in _below(harm, second)]
        began = time.monotonic()
        harm.server.ask("POST", f"/flow_runs/{second}/set_state", CANCELLING, 30)
        harm.run.wait("their cancellation", lambda: all(harm.ended(run).startswith("CANCEL") for run in below), 90)
    below.append(second)
    harm.run.wait("all ends", lambda: all(harm.ended(run) in FINAL for run in below), 90)
    harm.moment += f", all cancelled in {time.monotonic() - began:.0f} s"
    if harm.ended(second) != "CANCELLED" or any(harm.server.processes_of(run) for run in below):
        raise AssertionError(f"{harm.ended(second)}, with {[harm.server.processes_of(run) for run in below]}")

    third = harm.server.start("compare/file", asked)
    harm.run.wait("the verdict", lambda: harm.ended(third) in FINAL, 400, 0.5)
    if harm.ended(third) != "COMPLETED" or len(list(root.glob("verdicts/*/verdict.json"))) != 1:
        raise AssertionError(f"the comparison is {harm.ended(third)}")
    _compare_with_runs_alone(harm, root, first)


def _trainer(run: Path) -> psutil.Process:
    trainer = psutil.Process(json.loads((run / ".lock").read_text())["pid"])
    if "tasks.engines.builtin.trainer" not in " ".join(trainer.cmdline()):
        raise AssertionError(f"the run has a process of its own: {trainer.cmdline()}")
    return trainer


@contextlib.contextmanager
def _held(run: Path) -> Iterator[None]:
    """The trainer of the run stands still."""
    trainer = _trainer(run)
    send([trainer], signal.SIGSTOP)
    try:
        yield
    finally:
        send([trainer], signal.SIGCONT)


def _spoil(run: Path) -> None:
    """Kill the trainer, and leave the run one checkpoint, whole by its checksums, with a weight that is no number."""
    trainer = _trainer(run)
    send([trainer], signal.SIGKILL)
    while psutil.pid_exists(trainer.pid):
        time.sleep(0.01)
    *older, newest = sorted(path.parent for path in run.glob("checkpoints/step_*/manifest.json"))
    for each in older:
        shutil.rmtree(each)
    spoil_weights(newest)


def _compare_with_runs_alone(harm: Harm, root: Path, comparison: str) -> None:
    """Train each run of the comparison anew, without it, in a root with nothing but its arms. Raises AssertionError for other weights."""
    alone = root.with_name(f"{root.name}-alone")
    for part in ("arms", "pools"):
        shutil.copytree(root / part, alone / part)
    asked = [each["parameters"] for each in _below(harm, comparison) if each["work_pool_name"] == "gpu"]
    runs = [harm.server.start("train/train", each | {"root": str(alone), "comparison": None}) for each in asked]
    harm.run.wait("the runs alone", lambda: all(harm.ended(run) == "COMPLETED" for run in runs), 400, 0.5)
    ours, theirs = _weights(root), _weights(alone)
    if len(ours) != 4 or ours != theirs:
        raise AssertionError(f"other weights than alone: {sorted(run for run in ours if ours[run] != theirs.get(run))}")


def _weights(root: Path) -> dict[str, str]:
    """{run: SHA-256 of its last checkpoint's weights}"""
    found = {}
    for run in (path.parents[1] for path in root.glob("runs/*/result/manifest.json")):
        newest = sorted(run.glob("checkpoints/step_*/model.pt"))[-1]
        digest = hashlib.sha256(newest.parent.name.encode())
        for name, tensor in sorted(load_tensors(newest).items()):
            digest.update(name.encode() + tensor.contiguous().view(-1).numpy().tobytes())
        found[run.name] = digest.hexdigest()
    return found


def _trained(harm: Harm, root: Path, step: int, but: Path | None = None) -> Path:
    """Wait until a run under the root, another than `but`, is at work and has made so many steps; its folder."""

    def ready() -> Path | None:
        return next(
            (path.parent for path in root.glob("runs/*/metrics.jsonl") if path.parent != but and _at_work(path, step)),
            None,
        )

    return harm.run.wait(f"step {step}", ready, 300, 0.05)


def _at_work(metrics: Path, step: int) -> bool:
    """Lines of steps come together with that of their checkpoint; what a run writes at its end is of its last step, or says interrupted."""
    lines = read_metrics(metrics)
    if not lines:
        return False
    last = lines[-1]
    return step <= last["step"] < STEPS and (last["kind"] == "train" or last.get("event") == "checkpoint")


def _step(run: Path) -> int:
    return max((line["step"] for line in read_metrics(run / "metrics.jsonl")), default=0)


def _flow_run(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["attempts"][-1]["flow_run"]


def _below(harm: Harm, parent: str) -> list[dict[str, Any]]:
    return harm.server.ask("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [parent]}}}, 30)
