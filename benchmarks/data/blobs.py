"""Thousands of small blobs under a Prefect server on SQLite: what the orchestration costs, and whether the server answers.

The same preparation runs as plain functions and as a flow, with one task for each batch of blobs, several times in turn, against
a server of its own. Meanwhile the server's API is asked for its health every half second.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.data import corpus
from infra.local import azurite, ports


def main(arguments: argparse.Namespace) -> None:
    """Upload the blobs to Azurite, prepare them both ways, print wall times and the server's answering times."""
    folder = arguments.folder.absolute()
    raw = corpus.write(folder / "store", arguments.blobs, arguments.rows, 16)
    work = folder / "blobs"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    ours = [ports.choose(0), ports.choose(0)]
    environment = os.environ | {
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string(ours[0]),
        "PREFECT_HOME": str(work / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{ours[1]}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    store = subprocess.Popen(azurite.command(ours[0], work / "azurite"), stdout=subprocess.DEVNULL)
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(ours[1])],
        env=environment,
        stdout=(work / "server.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        for ready, process in (
            (lambda: azurite.answers(ours[0]), store),
            (lambda: answered(f"{environment['PREFECT_API_URL']}/health") is not None, server),
        ):
            if not ports.wait(ready, lambda process=process: process.poll() is None, 120):
                raise SystemExit("A server of the benchmark did not start.")
        upload(environment, raw)
        walls = {}
        answers: list[float] = []
        for kind in ("plain", "flow") * arguments.repeats:
            asking = Asking(f"{environment['PREFECT_API_URL']}/health") if kind == "flow" else None
            command = [sys.executable, "-m", "benchmarks.data.blob_job", kind, "az://raw", str(work / "root")]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            walls.setdefault(kind, []).append(seconds := json.loads(out.splitlines()[-1])["seconds"])
            print(f"# {kind}: {seconds:.1f} s", flush=True)
            if asking:
                answers += asking.stop()
            shutil.rmtree(work / "root")
    finally:
        for process in (server, store):
            process.terminate()
            process.wait()
    plain, flow = (median(walls[kind]) for kind in ("plain", "flow"))
    locked = (work / "server.log").read_text().count("database is locked")
    print(
        f"| {arguments.blobs} blobs | s |\n| --- | --- |\n| plain functions | {plain:.1f} |\n| under Prefect | {flow:.1f} |"
    )
    print(f"\norchestration: {(flow - plain) / flow:.1%} of the wall time; 'database is locked': {locked} times")
    print(
        f"the server answered {len(answers)} times, median {1000 * median(answers):.0f} ms, slowest {1000 * max(answers):.0f} ms"
    )


class Asking(threading.Thread):
    """Asks a URL every half second and remembers how long each answer took."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self._url, self._seconds, self._end = url, [], threading.Event()
        self.start()

    def run(self) -> None:
        while not self._end.wait(0.5):
            took = answered(self._url)
            self._seconds.append(60.0 if took is None else took)

    def stop(self) -> list[float]:
        """Seconds of each answer."""
        self._end.set()
        self.join()
        return self._seconds


def answered(url: str) -> float | None:
    """Seconds until the URL answered, or None."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            reply.read()
    except OSError:
        return None
    return time.monotonic() - began


def upload(environment: dict[str, str], raw: Path) -> None:
    """All files of a folder as blobs of the container `raw`."""
    from azure.storage.blob import BlobServiceClient

    service = BlobServiceClient.from_connection_string(environment["AZURE_STORAGE_CONNECTION_STRING"])
    service.create_container("raw")
    container = service.get_container_client("raw")
    for path in sorted(raw.glob("*.parquet")):
        container.upload_blob(f"fw/{path.name}", path.read_bytes())
