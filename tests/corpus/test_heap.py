"""How much of glibc's heap a process keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.corpus.heap import ARENAS

COUNTED = """
import ctypes, sys, threading
import numpy as np
import tasks.corpus

meet = threading.Barrier(17)
def hold():
    taken = np.ones(50_000, np.uint8)
    meet.wait()
    meet.wait()
for _ in range(16):
    threading.Thread(target=hold).start()
meet.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
meet.wait()
"""
"""A process with sixteen threads that all hold memory, and what glibc says of its heaps."""


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of glibc")
@pytest.mark.parametrize(("asked", "most"), [(None, ARENAS), ("7", 7)])
def test_threads_share_a_few_heaps(tmp_path: Path, asked: str | None, most: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    if asked:
        environment["MALLOC_ARENA_MAX"] = asked
    out = tmp_path / "heaps.xml"
    subprocess.run([sys.executable, "-c", COUNTED, str(out)], check=True, env=environment)
    assert out.read_text().count("<heap ") == most
