"""How many cores the work takes: as said, for libraries and processes that are started too, and all of them otherwise."""

import os
import subprocess
import sys

import pytest

from tasks.cores import cores, limited
from tasks.corpus.workers import local_workers

SAYS = "import torch; from tasks.cores import cores; print(cores(), torch.get_num_threads())"


def test_a_number_of_workers_holds_while_the_work_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABRATING_WORKERS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    everything = cores()
    assert everything == len(os.sched_getaffinity(0))
    with limited(5):
        assert (cores(), local_workers().processes, local_workers().threads) == (5, 2, 3)
    with limited(1):
        done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1", "1"]
    with limited(None):
        assert cores() == everything
    assert os.environ["OMP_NUM_THREADS"] == "7" and "RAYON_NUM_THREADS" not in os.environ
