"""What a fault is: its name, the experiment that it meets, and the outcome that it must have."""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from tests.chaos.harness.arm import ArmRun
from tests.chaos.harness.rig import Rig
from tests.chaos.harness.server import Server

Expected = Literal["completed", "refused"]


@dataclass
class Harm:
    """One experiment to inject a fault into, and what the fault noted."""

    rig: Rig
    run: ArmRun
    random: random.Random
    steps: int
    """Steps of the undisturbed training."""
    preparing: float
    """Seconds that the undisturbed preparation works."""
    reads: int
    """Ranges that it reads of the store."""
    at: float = 0.0
    moment: str = ""
    seen: int = 0
    """The newest step in the metrics at the moment of the fault."""
    finished: set[str] = field(default_factory=set)

    @property
    def server(self) -> Server:
        return self.run.server

    def ended(self, run: str) -> str:
        """The type of a run's state, "" while the server is away."""
        found = self.server.ask("GET", f"/flow_runs/{run}")
        return found["state"]["type"] if found else ""

    def strike(self, moment: str) -> None:
        """Note that the fault is injected now."""
        self.at, self.moment = time.time(), moment
        self.seen, self.finished = self.run.step(), set(self.run.stages())

    def in_preparation(self) -> str:
        """A random moment while `prepare` works; returns its run."""
        run = self.run.running("prepare")
        pause = self.random.uniform(0.0, 0.9 * self.preparing)
        time.sleep(pause)
        self.strike(f"{pause:.1f} s into prepare")
        return run

    def in_training(self, until: float = 0.8) -> str:
        """A random step of `train`, in the first `until` of them; returns its run."""
        run = self.run.running("train")
        wanted = self.random.randint(1, int(until * self.steps))
        self.run.steps_reached(wanted)
        self.strike(f"step {wanted}")
        return run

    def anywhere(self) -> None:
        """A random moment of `prepare` or `train`."""
        self.in_preparation() if self.random.random() < 0.5 else self.in_training()


Fault = Callable[[Harm], None]


@dataclass(frozen=True)
class Kind:
    """A fault by name, and the outcome that it must have. `ended_by`: words that the message of a refusal must hold."""

    name: str
    fault: Fault
    what: str
    expected: Expected = "completed"
    ended_by: str = ""
    small_disk: bool = False
    """Whether the experiment's root is a file system of its own, small enough to fill."""
    in_store: bool = False
    """Whether the experiment's root is in the blob store."""


KINDS: dict[str, Kind] = {}


def kind(what: str, **judged: Any) -> Callable[[Fault], Fault]:
    """Register a fault under its function's name; `judged`: the other fields of Kind."""

    def register(fault: Fault) -> Fault:
        name = fault.__name__.replace("_", "-")
        KINDS[name] = Kind(name, fault, what, **judged)
        return fault

    return register


def send(found: list[psutil.Process], number: int) -> None:
    """Send a signal to processes; those that are gone are no error."""
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
