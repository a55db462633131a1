"""One attempt at a run at a time, and one run per GPU."""

import subprocess
import sys

import pytest

from tasks.engines.locks import hold_run
from tasks.errors import BusyError

RUN = "arm-d2-s1-0123456789"


def test_a_run_and_a_gpu_have_one_holder_until_its_last_process_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.store.locks.GPU_LOCKS", tmp_path / "locks")
    run, gpus = tmp_path / "run", {"0123": "NVIDIA H100"}
    with hold_run(RUN, run, gpus) as descriptors:
        rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=descriptors)
        with pytest.raises(BusyError, match=f"run {RUN}"), hold_run(RUN, run, {}, patience=0):
            pass
        with pytest.raises(BusyError, match="GPU NVIDIA H100"), hold_run("other", tmp_path / "other", gpus, patience=0):
            pass
    with pytest.raises(BusyError), hold_run(RUN, run, {}, patience=0):
        pass
    rank.kill()
    rank.wait()
    with hold_run(RUN, run, gpus, patience=0) as descriptors:
        assert len(descriptors) == 2
