"""Who does the work: jobs for threads and processes, and what becomes of processes whose parent is killed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.corpus import workers
from tasks.corpus.workers import BATCH, Workers
from tests.corpus.corpora import write_corpus
from tests.waiting import within

HOLDER = """
import os, time
from tasks.corpus.workers import processes
with processes(2) as pool:
    pool.submit(time.sleep, 60)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""
"""A process that has another one work for it."""

PLACES = """
import os
from tasks.corpus import workers
workers.Workers(8).get_ready()
os.environ["COLOUR"] = "green"
with workers.processes(2) as pool:
    there = pool.submit(eval, "__import__('tasks.corpus.workers').corpus.workers.__file__").result()
    print(workers.__file__, there, pool.submit(os.getenv, "COLOUR").result(), sep="\\n")
"""

SCRIPT = """
import sys
from tasks.corpus.prepare import build_arms, build_index
from tasks.spec import Arm, Pool
from tasks.store.root import Root
root, pool = Root(sys.argv[1]), Pool(source=sys.argv[2], holdout_documents=16)
build_index(root, pool, workers=8)
(arm,) = build_arms(root, pool, [Arm(name="all", select="all", documents_per_shard=32, population=())], workers=8)
print(arm.facts["documents"], arm.facts["shards"])
"""
"""Two processes, and no `if __name__ == "__main__"`."""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_preparation_leaves_no_process_behind() -> None:
    parent = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        worker = int(parent.stdout.readline())
        below = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert worker in below
    finally:
        parent.kill()
        parent.wait()
    within(20, lambda: all(map(gone, below)))
    left = [pid for pid in below if not gone(pid)]
    for pid in left:
        psutil.Process(pid).kill()
    assert left == []


@pytest.mark.parametrize(("cores", "items"), [(2, 100), (8, 3), (16, 48), (16, 54), (16, 3250), (64, 3250)])
def test_jobs_hold_all_items_in_order_and_each_process_gets_as_many(cores: int, items: int) -> None:
    given = Workers(cores)
    jobs = given.batches(range(items), lambda item: 1)
    assert [item for job in jobs for item in job] == list(range(items))
    if given.processes == 1:
        assert len(jobs) == 1
        return
    assert max(map(len, jobs)) <= BATCH
    rounds = -(-len(jobs) // given.processes)
    assert rounds * max(map(len, jobs)) <= 1.1 * items / given.processes + 1  # the most that one process does


def test_what_is_soon_done_is_one_job() -> None:
    assert Workers(16).batches(range(480), lambda item: 1, soon=True) == [list(range(480))]


def test_processes_run_this_checkout_and_know_the_environment_of_their_first(tmp_path: Path) -> None:
    other = tmp_path / "other" / "tasks" / "corpus"
    other.mkdir(parents=True)
    for folder in (other.parent, other):
        (folder / "__init__.py").write_text("raise SystemExit('another checkout')")
    job = tmp_path / "job.py"
    job.write_text(PLACES)
    environment = {**os.environ, "COLOUR": "blue"}
    run = subprocess.run(
        [sys.executable, job], cwd=tmp_path / "other", env=environment, capture_output=True, text=True, check=True
    )
    here, there, colour = run.stdout.splitlines()
    assert here == there == workers.__file__
    assert colour == "green"


def test_a_plain_script_prepares_an_arm_with_several_processes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "raw", files=6, rows=200)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tmp_path / "root", (tmp_path / "raw").as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (run.returncode, run.stdout, run.stderr) == (0, "1184 37\n", "")  # once: no process ran the script again


def test_after_a_killed_worker_the_next_stage_has_new_ones() -> None:
    code = """
from concurrent.futures.process import BrokenProcessPool
from tasks.corpus.workers import processes
import os
try:
    with processes(1) as pool:
        pool.submit(os._exit, 9).result()
except BrokenProcessPool:
    with processes(1) as pool:
        print(pool.submit(abs, -7).result())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "7\n"


def test_a_process_of_multiprocessing_ends_although_it_had_processes() -> None:
    code = """
import multiprocessing
from tasks.corpus.workers import processes
def work():
    with processes(2) as pool:
        print(pool.submit(abs, -7).result(), flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "7\n"
