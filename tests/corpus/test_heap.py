"""How many of glibc's heaps a process keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.corpus.heap import ARENAS
from tests.corpus.corpora import write_corpus

COUNTER = """
import ctypes, threading
import numpy as np

def hold(meet):
    taken = np.ones(50_000, np.uint8)
    meet.wait()
    meet.wait()

def count(path):
    meet = threading.Barrier(17)
    for _ in range(16):
        threading.Thread(target=hold, args=[meet]).start()
    meet.wait()
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(path.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    meet.wait()
"""
"""Sixteen threads that all hold memory, and what glibc says of the heaps of their process."""

PROGRAM = """
import sys
from counter import count
from tasks.corpus.prepare import build_arms
from tasks.corpus.workers import processes
from tasks.spec import Arm, Pool
from tasks.store.root import Root

what, path, root, raw = sys.argv[1:]
if what == "preparation":
    build_arms(Root(root), Pool(source=raw, holdout_fraction=0.2), [Arm(select="all")], workers=2)
if what == "worker":
    with processes(1) as pool:
        pool.submit(count, path).result()
else:
    count(path)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of glibc")
@pytest.mark.parametrize(
    ("what", "asked", "least", "most"),
    [
        ("import", None, 9, 99),  # nothing is limited before there is work to do
        ("preparation", None, 1, ARENAS),
        ("preparation", "7", 7, 7),
        ("worker", None, 1, ARENAS),
    ],
)
def test_threads_of_a_preparation_share_a_few_heaps(
    tmp_path: Path, what: str, asked: str | None, least: int, most: int
) -> None:
    write_corpus(tmp_path / "raw")
    (tmp_path / "counter.py").write_text(COUNTER)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    if asked:
        environment["MALLOC_ARENA_MAX"] = asked
    out = tmp_path / "heaps.xml"
    command = [sys.executable, script, what, out, tmp_path / "root", (tmp_path / "raw").as_uri()]
    subprocess.run(command, check=True, env=environment, timeout=240)
    assert least <= out.read_text().count("<heap ") <= most
