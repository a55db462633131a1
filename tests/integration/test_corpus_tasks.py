"""Preparation as Prefect tasks: on threads of the flow's process, and on Dask workers that share nothing but the root."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.prepare import TaskSteps
from tasks.corpus import prepare
from tasks.progress import Progress
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.waiting import within

pytestmark = [pytest.mark.stack, pytest.mark.slow]

FILES = 650  # small ones: more than go into one batch
ARMS = [
    Arm(name="top", share=0.5, documents_per_shard=1000),
    Arm(name="mixed", select="all", order="shuffled", deduplicate=True, documents_per_shard=640),
]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    # Here, not above: it imports the whole server, which costs seconds where these tests are only collected.
    from prefect.events.worker import EventsWorker
    from prefect.testing.utilities import prefect_test_harness

    EventsWorker.drain_all(timeout=20)  # one of earlier tests in this process would go on sending to their server
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for number in range(FILES):
        texts = [f"{number}/{row % 17} " + "word " * int(rng.integers(0, 90)) for row in range(20)]
        scores = {name: rng.integers(0, 6, 20).astype(float) for name in (PEDAGOGICAL, FACTUAL, ENGAGEMENT)}
        pq.write_table(pa.table({"text": texts, **scores}), folder / f"{number:03d}.parquet")
    return folder


@pytest.fixture(scope="module")
def reference(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[bytes]]:
    """The shards of both arms, made by one thread without Prefect."""
    made = prepare.build_arms(Root(tmp_path_factory.mktemp("reference")), pool_of(raw.as_uri()), ARMS, workers=1)
    return [shards(artifact.path) for artifact in made]


def pool_of(source: str) -> Pool:
    return Pool(source=source, holdout_documents=40, holdout_fraction=0.1)


def shards(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("shard_*.parquet"))]


def run(root: str, source: str, runner: TaskRunner) -> list[dict]:
    """Index, holdout and the text of both arms in a flow: its id, and what each artifact counted."""

    @flow(task_runner=runner)
    def preparation() -> list[dict]:
        from prefect.runtime import flow_run

        store, steps = Root(root), TaskSteps()
        pool = prepare.open_pool(store, pool_of(source))
        index = steps.spread("Index", lambda show, on: prepare.build_index(store, pool, mapper=on, progress=show))
        held = steps.run("Holdout", lambda show: prepare.build_holdout(store, pool, progress=show))
        arms = steps.spread("Text", lambda show, on: prepare.build_arms(store, pool, ARMS, mapper=on, progress=show))
        return [{"run": flow_run.id}, *({"artifact": made.name, **made.facts} for made in (index, held, *arms))]

    return preparation()


def task_names(flow_run_id: str) -> list[str]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    return sorted(run.name for run in runs)


def test_a_batch_of_blobs_is_one_task(raw: Path, tmp_path: Path, reference: list[list[bytes]]) -> None:
    began, index, held, *arms = run(str(tmp_path / "root"), raw.as_uri(), ThreadPoolTaskRunner())
    assert (index["documents"], held["documents"]) == (FILES * 20, 40)
    made = [shards(Root(tmp_path / "root").path(arm["artifact"])) for arm in arms]
    assert made == reference
    batches = [f"read columns {i} of 2" for i in (1, 1, 2, 2)]  # of the index, then of the scores that the arms ask for
    batches += [f"read texts {i} of 2" for i in (1, 2)]
    read = lambda: [name for name in task_names(began["run"]) if name.startswith("read")]  # noqa: E731
    assert within(30, lambda: read() == batches), read()  # the server learns of task runs a little later
    assert "Holdout" in task_names(began["run"])


def test_progress_that_another_thread_reports_belongs_to_the_run() -> None:
    def work(progress: Progress) -> None:
        reporter = threading.Thread(target=progress, args=("stage", 1, 1, {}))
        reporter.start()
        reporter.join()

    @flow
    def threaded() -> str:
        from prefect.runtime import flow_run

        TaskSteps().run("Threads", work)
        return flow_run.id

    ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[threaded()]))
    with get_client(sync_client=True) as client:
        assert [shown.key for shown in client.read_artifacts(artifact_filter=ours)] == ["threads-stage"]


def test_two_dask_workers_share_only_the_remote_root(
    raw: Path, azure: str, tmp_path: Path, reference: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    prefect_dask = pytest.importorskip("prefect_dask")
    url = f"az://{azure}"
    store = open_blobs(url)
    for path in sorted(raw.glob("*.parquet")):
        store.upload(path, f"raw/{path.name}")
    monkeypatch.setenv("FABRATING_CACHE", str(tmp_path / "cache"))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            workers = set(client.run(os.getpid).values())
            assert len(workers) == 2
            assert os.getpid() not in workers
        runner = prefect_dask.DaskTaskRunner(address=cluster.scheduler_address)
        *_, top, mixed = run(f"{url}/root", f"{url}/raw", runner)
    root = Root(f"{url}/root", cache=tmp_path / "elsewhere")
    assert [shards(root.open(arm["artifact"]).path) for arm in (top, mixed)] == reference
    left = [blob.name for blob in open_blobs(url).list("root") if ".runs" in blob.name or ".index" in blob.name]
    assert left == []
