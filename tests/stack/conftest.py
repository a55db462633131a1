"""One real stack for all tests here: Prefect server, Azurite, a worker for each pool, the sample, in a folder of its own."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from infra.local import lifecycle, ports, processes
from infra.local.access import connected
from infra.local.publish import publish
from infra.local.sample_data import build_sample
from infra.local.stack import PROJECT, Stack, full_environment
from tasks.store.settings import load_settings
from tests import wandb_service

DOCUMENTS = 1_000
ARM = {"name": "top16", "select": "top", "share": 0.165, "order": "best-first"}
DATA = {
    "name": "sample",
    "holdout_documents": 40,
    "holdout_fraction": 0.1,
    "vocab_size": 512,
    "tokenizer_characters": 200_000,
}
PROXY = "http://127.0.0.1:9"
"""Nobody listens there."""
SHELL = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
    **{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1"},
    **{"OMP_NUM_THREADS": "1,1", "WANDB_RUN_ID": "mine", "WANDB_SWEEP_ID": "sweep"},
}
"""What the shell of a person exports who works on a cluster."""
TRAIN = {
    "depth": 1,
    "sequence_length": 64,
    "window_pattern": "L",
    "batch_tokens": 2048,
    "precision": "fp32",
    "device": "cpu",
    "wandb": "disabled",
}
PLANTED = {
    "WANDB_API_KEY": wandb_service.REFUSED,
    "HF_TOKEN": "hf_plantedTokenOfTheHub",
    "AZURE_STORAGE_KEY": "cGxhbnRlZCBrZXkgb2YgYW4gYWNjb3VudA==",
    "AZURE_STORAGE_SAS_TOKEN": "sv=2022-11-02&sp=rl&sig=plantedSignatureOfTheShell%3D",
    "AZURE_CLIENT_SECRET": "plantedSecretOfAPrincipal",
    "FABRATING_SSH_PASSPHRASE": "plantedPassphraseOfAKey",
}
"""Secrets that the stack's parts and their runs inherit; what they use themselves are its own password and key."""
COMMANDS: set[bytes] = set()
"""Command lines that were seen while the stack ran."""


@pytest.fixture(scope="session")
def said() -> list[str]:
    """What the stack told its user while it came up."""
    return []


@pytest.fixture(scope="session")
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as stranger:
        stranger.bind((ports.HOST, 0))
        stranger.listen()
        yield stranger.getsockname()[1]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, sample: Path, said: list[str], taken: int) -> Iterator[Stack]:
    """The stack, started with a port that is taken, from a shell with secrets, a proxy and a cluster job of somebody's own."""
    home = tmp_path_factory.mktemp("someone's home")
    shutil.copytree(sample.parent, home / "sample")
    with wandb_service.service() as url, watched():
        with pytest.MonkeyPatch.context() as shell:
            for name, value in (SHELL | PLANTED | {"WANDB_BASE_URL": url}).items():
                shell.setenv(name, value)
            load_settings()  # as each command does
            running = lifecycle.up(home, said.append, port=taken)
        urllib.request.install_opener(None)  # type: ignore[arg-type]  # it keeps the proxies of its first request
        try:
            publish(running, build_sample(home, DOCUMENTS, packages=()), said.append)
            yield running
        finally:
            mark = running.mark
            lifecycle.down(home, said.append)
            assert processes.members(mark) == []


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Note the command lines of all processes of the machine in COMMANDS, as any account can, twice a second."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    COMMANDS.add(path.read_bytes().replace(b"\0", b" "))

    threading.Thread(target=look, name="command lines", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[SyncPrefectClient]:
    """A client of the stack's server."""
    with connected(stack.environment), get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def parameters(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """Parameters of an experiment on the sample, small enough for a test, with a root of their own."""
    return parameters_with(stack, tmp_path / "root")


def parameters_with(stack: Stack, root: Path) -> dict[str, Any]:
    """Parameters of an experiment on the sample, small enough for a test, with the given root."""
    return {
        "arm": ARM,
        "data": {**DATA, "source": stack.sample},
        "train": TRAIN,
        "seed": 1,
        "root": str(root),
    }


def run_deployment(client: SyncPrefectClient, name: str, parameters: dict[str, Any], minutes: float = 6) -> FlowRun:
    """A run of a deployment, once it has ended."""
    deployment = client.read_deployment_by_name(name)
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    state = lambda: client.read_flow_run(run.id).state  # noqa: E731
    wait(lambda: state().is_final(), 60 * minutes)
    return client.read_flow_run(run.id)


def run_by_command(stack: Stack, client: SyncPrefectClient, name: str, parameters: dict[str, Any]) -> FlowRun:
    """The same by `prefect deployment run NAME --watch`, which must end well."""
    words = ("-m", "prefect", "deployment", "run", name, "--watch", "--params", json.dumps(parameters))
    result = subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env=full_environment(stack),
        capture_output=True,
        text=True,
        check=False,
        timeout=360,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return newest(client, name)


def newest(client: SyncPrefectClient, name: str) -> FlowRun:
    """The run of a deployment that was made last."""
    return runs_of(client, name)[0]


def runs_of(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    """The runs of a deployment, the last one first."""
    deployment = client.read_deployment_by_name(name)
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def artifacts_of(client: SyncPrefectClient, run: FlowRun) -> list[Artifact]:
    """What a run shows on its page."""
    return client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])))


def children(client: SyncPrefectClient, run: FlowRun) -> dict[str, FlowRun]:
    """The runs below a run, by the name of their flow."""
    return {client.read_flow(one.flow_id).name: one for one in runs_below(client, run)}


def below(client: SyncPrefectClient, run: FlowRun) -> Counter[str]:
    """How many children of each flow a run has."""
    return Counter(client.read_flow(child.flow_id).name for child in runs_below(client, run))


def runs_below(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """The runs below a run."""
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    return client.read_flow_runs(flow_run_filter=wanted)


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    """What the condition is once it is true. Raises TimeoutError, which no expected failure takes for its own."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.5)
    return found
