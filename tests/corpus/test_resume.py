"""Killed at any moment, a preparation goes on behind the last finished file and ends with the same bytes."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import write_corpus

ARMS = [
    Arm(name="top", share=0.4, documents_per_shard=100),
    Arm(name="unlike", select="all", deduplicate=True, order="shuffled", documents_per_shard=150),
]
LOOKED_INTO = {f"{file:08d}" for file in (0, 12, 23)}
"""First, middle and last file: whether they have the columns is asked of each attempt that has no whole index yet."""
PROGRAM = """
import json, sys
from tasks.corpus.prepare import build_arms
from tasks.spec import Arm, Pool
from tasks.store.root import Root
pool, *arms = json.loads(sys.argv[3])
build_arms(Root(sys.argv[1]), Pool(**pool), [Arm(**arm) for arm in arms], workers=int(sys.argv[2]))
"""


def program(root: Path, pool: Pool, workers: int) -> list[str]:
    """The command that builds ARMS in a process of its own."""
    given = json.dumps([spec.model_dump(mode="json") for spec in (pool, *ARMS)])
    return [sys.executable, "-c", PROGRAM, str(root), str(workers), given]


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact but its manifest, by name."""
    files = [
        p for p in root.rglob("*") if p.is_file() and not any(q.startswith(".") for q in p.relative_to(root).parts)
    ]
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.name != "manifest.json"
    }


def finished(root: Path) -> dict[str, tuple[int, int]]:
    """What must not be made again: intermediate and final files that count, with inode and time."""
    names = {}
    for pattern in (".index/[0-9]*", ".runs/[0-9]*", ".*.partial/.records/shard_*"):
        for path in root.glob(f"*/*/{pattern}"):
            counts = path.parent.parent / path.stem if path.parent.name == ".records" else path
            # while it runs, what it needs no longer can go after it was listed
            with contextlib.suppress(FileNotFoundError):
                status = counts.stat()
                names[f"{path.relative_to(root)}"] = (status.st_ino, status.st_mtime_ns)
    return names


@pytest.mark.slow
def test_killed_ten_times_it_reads_no_finished_file_again(tmp_path: Path, range_server: Path) -> None:
    write_corpus(tmp_path / "store/raw", files=24, rows=300, row_group=100)
    pool = Pool(source="az://raw", holdout_documents=40)
    undisturbed = Root(tmp_path / "undisturbed")
    began = time.monotonic()
    build_arms(undisturbed, open_pool(undisturbed, pool), ARMS, workers=2)
    seconds = time.monotonic() - began

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    root, kills, rng = tmp_path / "root", 0, random.Random(5)
    done: dict[str, tuple[int, int]] = {}
    for attempt in range(40):
        indexed = {path.stem for path in root.glob("pools/*/.index/[0-9]*")}
        runs = Counter(path.name.split("-")[0] for path in root.glob("arms/*/.runs/*.run"))
        range_server.write_text("")
        process = subprocess.Popen(program(root, pool, workers=2), env=environment)
        deadline = time.monotonic() + 60
        seen = len(finished(root))
        while kills < 10 and process.poll() is None and len(finished(root)) == seen and time.monotonic() < deadline:
            time.sleep(0.005)  # it starts slowly and works fast: wait until something is done, then a moment longer
        if kills < 10 and process.poll() is None:
            time.sleep(rng.uniform(0, seconds / 10))
            os.kill(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert process.wait(60) in (0, -signal.SIGKILL)
        now = finished(root)
        assert not [name for name, mark in done.items() if now.get(name, mark) != mark], attempt
        done = now
        for name, start, end in (line.split("\t") for line in range_server.read_text().splitlines()):
            number = f"{int(name[-11:-8]):08d}"
            if start == "0":  # a small file is indexed by one read of all of it
                assert number not in indexed or number in LOOKED_INTO, attempt
            elif int(end) - int(start) > 50_000:  # all row groups at once: the text pass, not the holdout
                assert runs[number] < len(ARMS), attempt
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 4
    assert hashes(root) == hashes(tmp_path / "undisturbed")


def test_the_bytes_do_not_depend_on_workers_or_batches(tmp_path: Path) -> None:
    write_corpus(tmp_path / "raw", files=7, rows=200, row_group=30)
    pool = Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=16)
    results = []
    for workers in (1, 2, 5):  # 5: two processes
        root = Root(tmp_path / f"root{workers}")
        # a process of its own: a server of processes, once started, would serve all tests that follow in this one
        subprocess.run(program(root.folder, pool, workers), check=True, timeout=120)
        results.append(hashes(root.folder))
    assert results[0] == results[1] == results[2]


def test_several_arms_read_the_text_once(tmp_path: Path, range_server: Path) -> None:
    write_corpus(tmp_path / "store/raw", files=3, rows=3000, row_group=500)
    root = Root(tmp_path / "root")
    pool = Pool(source="az://raw", holdout_documents=8, holdout_fraction=0.5)
    arms = [Arm(name=f"a{i}", select=select) for i, select in enumerate(("top", "bottom", "random", "all"))]
    build_arms(root, pool, arms)
    reads = Counter(range_server.read_text().splitlines())
    again = sum(count - 1 for count in reads.values())
    assert again <= 11  # the row groups of the holdout, and three files that are looked into first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.corpus.arm.scatter.scatter", None)
        assert [artifact.reused for artifact in build_arms(root, pool, arms)] == [True] * 4
    before = len(range_server.read_text().splitlines())
    build_arms(root, pool, [*arms, Arm(name="one-more", select="random", seed=7)])
    assert len(range_server.read_text().splitlines()) - before <= 18
