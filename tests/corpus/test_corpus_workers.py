"""Who does the work: jobs for threads and processes, and what becomes of processes whose parent is killed."""

import subprocess
import sys
import time

import psutil
import pytest

from tasks.corpus.workers import BATCH, Workers

HOLDER = """
import os, time
from tasks.corpus.workers import processes
pool = processes(2)
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 60)
time.sleep(60)
"""
"""A process that has another one work for it."""


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
    deadline = time.monotonic() + 20
    while not all(map(gone, below)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in below if not gone(pid)]
    for pid in left:
        psutil.Process(pid).kill()
    assert left == []


@pytest.mark.parametrize(("cores", "items"), [(2, 100), (8, 3), (16, 48), (16, 54), (16, 3250), (64, 3250)])
def test_jobs_hold_all_items_in_order_and_each_process_gets_as_many(cores: int, items: int) -> None:
    workers = Workers(cores)
    jobs = workers.batches(range(items), lambda item: 1)
    assert [item for job in jobs for item in job] == list(range(items))
    if workers.processes == 1:
        assert len(jobs) == 1
        return
    assert max(map(len, jobs)) <= BATCH
    rounds = -(-len(jobs) // workers.processes)
    assert rounds * max(map(len, jobs)) <= 1.1 * items / workers.processes + 1  # the most that one process does


def test_what_is_soon_done_is_one_job() -> None:
    assert len(Workers(16).batches(range(48), lambda item: 1, least=BATCH)) == 1
    assert len(Workers(16).batches(range(480), lambda item: 0.1, least=BATCH)) == 1
    assert len(Workers(16).batches(range(3250), lambda item: 1, least=BATCH)) == -(-3250 // BATCH)
