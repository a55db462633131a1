"""A run that moves between hosts over a common root, and two hosts that both believe it is theirs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from infra.local import azurite
from tasks.engines.builtin import checkpoint
from tasks.engines.locks import hold_attempt
from tasks.errors import SupersededError
from tasks.records.layout import RunFolder
from tasks.records.metrics import MetricsLog, cut_back, read_metrics
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.chaos.harness.proxy import Proxy

INPUTS = {"packed": "x"}


class Attempt:
    """An attempt on a host: from the newest checkpoint, evaluations and checkpoints of given weights at some steps."""

    def __init__(self, root: Root):
        self.root, self.path = root, root.path(RunFolder("r").file("metrics.jsonl"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = checkpoint.find(root, "r", INPUTS)
        self.start = found.step if found else 0
        cut_back(root, "r", self.start)
        self.lines = MetricsLog(self.path)
        name = root.folder.parent.name
        self.saved = checkpoint.Checkpoints(
            root, "r", INPUTS, name, mirrored=(self.path,), last=self.start or None, keep_last=2
        )

    def train(self, step: int, weight: float = 0.0) -> None:
        self.lines.write("eval", step, bpb=1.5)
        self.saved.save(
            {"w": torch.full((4,), weight)}, {"optimizer": {"m": torch.zeros(1)}}, {"step": step, "rows": step}
        )
        self.saved.settle()
        self.saved._mirroring.result()

    def close(self) -> list[int]:
        """The steps in the metrics."""
        self.saved.close()
        self.lines.close()
        return [line["step"] for line in read_metrics(self.path)]


def test_a_run_that_comes_back_to_a_host_has_every_evaluation(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()

    def attempt(host: str, step: int) -> tuple[int, list[int]]:
        root = Root(tmp_path / host)
        root.remote = open_blobs((tmp_path / "store").as_uri())
        made = Attempt(root)
        made.train(step)
        return made.start, made.close()

    attempt("here", 250)
    assert attempt("there", 500) == (250, [250, 500])
    assert attempt("here", 750) == (500, [250, 500, 750])


@pytest.fixture
def link(azurite_port: int, azure: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way of one host to the store; what fails there is not tried again."""
    monkeypatch.setattr("tasks.store.access.RETRIES", {"max_retries": 0})
    monkeypatch.setattr("tasks.store.lease.TERM", 2.0)
    made = Proxy(azurite_port)
    made.start()
    yield made
    made.close()


@pytest.fixture
def hosts(link: Proxy, azure: str, azurite_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the root as a host sees it: "cut" by way of the link, others directly."""

    def make(name: str) -> Root:
        port = link.port if name == "cut" else azurite_port
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(port))
        return Root(f"az://{azure}/root", tmp_path / name)

    return make


def weights(root: Root) -> dict[int, float]:
    """The first weight of each checkpoint in the store, checksums compared."""
    names = checkpoint.steps_of(root.names(RunFolder("r").checkpoints))
    found = {step: checkpoint.Checkpoint.of(root.open(name, checksums=True)) for step, name in names.items()}
    return {step: one.model()["w"][0].item() for step, one in found.items()}


def test_a_link_that_was_down_costs_nothing(link: Proxy, hosts) -> None:
    root = hosts("cut")
    with hold_attempt(root, "r", {}):
        made = Attempt(root)
        made.train(1)
        with link.trouble("refuse"):
            made.train(2)
            made.train(3)
            made.saved.check()
        made.train(4)
        made.saved.check()
        assert made.close() == [1, 2, 3, 4]
    assert weights(hosts("third")).keys() == {4}  # the last two are kept, and the third was not mirrored
    assert read_steps(hosts("fourth")) == [1, 2, 3, 4]


def test_a_host_that_was_cut_off_and_succeeded_publishes_nothing(link: Proxy, hosts) -> None:
    cut, other = hosts("cut"), hosts("other")
    with contextlib.ExitStack() as held:
        held.enter_context(hold_attempt(cut, "r", {}))
        old = Attempt(cut)
        old.train(1, weight=1)
        with link.trouble("reset"):
            old.train(2, weight=1)
            held.enter_context(hold_attempt(other, "r", {}))  # once the claim has expired
            new = Attempt(other)
            assert new.start == 1
            new.train(2, weight=2)
        old.train(3, weight=1)
        with pytest.raises(SupersededError, match=r"The run r was taken over by process .*: this attempt stops"):
            old.saved.check()
        with pytest.raises(SupersededError):
            cut.build("runs/r/result", lambda work: None, spec={})
        old.close()
        new.train(3, weight=2)
        new.saved.check()
        new.close()
    assert weights(hosts("third")) == {2: 2, 3: 2}
    assert read_steps(hosts("fourth")) == [1, 2, 3]


def read_steps(root: Root) -> list[int]:
    """The steps of the metrics that belong to the newest checkpoint."""
    found = checkpoint.find(root, "r", INPUTS)
    return [line["step"] for line in cut_back(root, "r", found.step)]
