"""Importing the room changes nothing for the process that does it."""

import json
import subprocess
import sys

COUNTED = """
import json, os, sys, threading
import numpy, pyarrow, pyarrow.parquet, pyarrow.compute
def state():
    return dict(os.environ), threading.active_count(), len(os.listdir("/proc/self/task"))
before = state()
import tasks.corpus.prepare, tasks.corpus.workers, tasks.corpus.pool.survey, tasks.corpus.arm.rates
after = state()
spawn = sys.modules.get("multiprocessing.spawn")
print(json.dumps([before, after, spawn is None or spawn._fixup_main_from_path.__name__ == "_fixup_main_from_path"]))
"""


def test_an_import_sets_no_variable_and_starts_no_thread() -> None:
    run = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True)
    before, after, untouched = json.loads(run.stdout)
    assert after == before
    assert untouched
