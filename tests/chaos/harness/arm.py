"""One experiment on the rig, followed from outside: its runs' states, its steps, what it read, what it left."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.engines.builtin.checkpoint import load_tensors, steps_of
from tasks.records.metrics import read_metrics
from tasks.store.root import Root
from tests.chaos.harness.server import Server

DEPLOYMENT = "experiment/top16"
ARM = {"name": "top16", "select": "top", "share": 0.3, "order": "best-first", "documents_per_shard": 32}
DATA = {"name": "sample", "holdout_documents": 40, "holdout_fraction": 0.1, "vocab_size": 512}
TRAIN = {
    **{"depth": 1, "sequence_length": 64, "window_pattern": "L", "batch_tokens": 128, "precision": "fp32"},
    **{"device": "cpu", "wandb": "disabled", "eval_every": 1_000, "save_every": 10, "tokens": 64_000},
}
BAD = {"FAILED", "CRASHED", "CANCELLED"}
END_SECONDS = 600.0
"""An experiment that has not ended by then is lost."""


@dataclass(frozen=True)
class Left:
    """What a completed experiment left: SHA-256 of its packed rows and of its last checkpoint's weights, its score."""

    rows: str
    weights: str
    bpb: float


@dataclass(frozen=True)
class Change:
    """A flow or task run entered a state. `at`: seconds of the epoch."""

    at: float
    run: str
    type: str
    name: str
    message: str


@dataclass
class ArmRun:
    """An experiment with a root of its own; `source`: where its raw data lies.

    `url`: its root in the blob store, of which `root` is then the first host's cache.
    """

    server: Server
    root: Path
    source: str
    seed: int = 1
    patience: float = 100.0
    """Seconds that a failed or crashed one has to be set going again, before it counts as ended."""
    id: str = ""
    url: str = ""
    began: float = field(default_factory=time.time)

    @property
    def parameters(self) -> dict[str, Any]:
        """The same for all of them, but for the root."""
        data = {**DATA, "tokenizer_characters": 200_000, "source": self.source}
        return {"arm": ARM, "data": data, "train": TRAIN, "seed": self.seed, "root": self.url or str(self.root)}

    def start(self) -> None:
        """Ask the server for the run."""
        self.id = self.server.start(DEPLOYMENT, self.parameters)

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of the experiment, None while the server is away."""
        found = self.server.ask("GET", f"/flow_runs/{self.id}")
        return found["state"] if found else None

    def child(self, step: str) -> str | None:
        """The id of the run below it whose deployment is `step` (prepare, train), if there is one."""
        body = {"flow_runs": {"parent_flow_run_id": {"any_": [self.id]}}, "flows": {"name": {"any_": [step]}}}
        found = self.server.ask("POST", "/flow_runs/filter", body)
        return found[0]["id"] if found else None

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = 240.0, pause: float = 0.2) -> Any:
        """Ask every `pause` seconds until `ready` says something, and return that. Raises TimeoutError naming `what`."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(pause)
        return found

    def running(self, step: str) -> str:
        """Wait until the child `step` has a process that works at it; returns the child's id."""

        def ready() -> str | None:
            run = self.child(step)
            found = self.server.ask("GET", f"/flow_runs/{run}") if run else None
            return run if found and found["state"]["type"] == "RUNNING" else None

        return self.wait(f"{step} to run", ready)

    def made(self, pattern: str) -> list[Path]:
        """Files below the root that match a pattern."""
        return sorted(self.root.glob(pattern))

    def step(self) -> int:
        """The newest step in the metrics, 0 before the first."""
        return max(
            (line["step"] for path in self.made("runs/*/metrics.jsonl") for line in read_metrics(path)), default=0
        )

    def steps_reached(self, step: int) -> int:
        """Wait until that many steps are done; returns how many there are then."""
        return self.wait(f"step {step}", lambda: found if (found := self.step()) >= step else 0)

    def finish(self, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Wait until the experiment has completed, or failed and stays so; returns its state."""
        deadline, ended = time.monotonic() + seconds, 0.0
        while time.monotonic() < deadline:
            state = self.state
            if state and state["type"] == "COMPLETED":
                return state
            if state and state["type"] in BAD:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > self.patience:
                    return state
            elif state:
                ended = 0.0
            time.sleep(0.5)
        raise TimeoutError(f"the experiment did not end within {seconds:.0f} s: {self.state}")

    def changes(self) -> list[Change]:
        """All states of the experiment, its children and their tasks, in order."""
        runs = [self.id, *(run for step in ("prepare", "train") if (run := self.child(step)))]
        found = []
        for run in runs:
            found += self._states("flow_run", run)
            tasks = self.server.ask("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}, 30) or []
            for task in tasks:
                found += self._states("task_run", task["id"])
        return sorted(found, key=lambda change: change.at)

    def _states(self, kind: str, run: str) -> Iterator[Change]:
        for state in self.server.ask("GET", f"/{kind}_states/?{kind}_id={run}", patience=30) or []:
            at = datetime.fromisoformat(state["timestamp"].replace("Z", "+00:00")).timestamp()
            yield Change(at, run, state["type"], state["name"], state.get("message") or "")

    def left(self) -> Left:
        """What a completed one left; every checksum of the artifacts is compared on the way."""
        root = Root(self.url or str(self.root), self.root.with_suffix(".seen") if self.url else None)
        (packed,) = (name for name in root.names("arms") if "/packed/" in name)
        (result,) = (name for name in root.names("runs") if name.endswith("/result"))
        rows = root.open(packed, checksums=True).path / "rows.bin"
        names = steps_of(root.names(result.removesuffix("/result") + "/checkpoints"))
        weights = load_tensors(root.open(names[max(names)], checksums=True).path / "model.pt")
        digest = hashlib.sha256()
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode() + tensor.contiguous().view(-1).numpy().tobytes())
        bpb = root.open(result, checksums=True).facts["bpb"]
        return Left(hashlib.sha256(rows.read_bytes()).hexdigest(), digest.hexdigest(), bpb)

    def stages(self) -> dict[str, float]:
        """When each artifact that is read from the blobs was complete, by its last name."""
        found = {}
        for stage in ("pools/*/index", "pools/*/holdout", "arms/*/text", "pools/*/sample"):
            for path in self.made(f"{stage}/manifest.json"):
                found[stage.rsplit("/", 1)[-1]] = path.stat().st_mtime
        return found
