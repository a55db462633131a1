"""Imported by the server of worker processes, and by nothing else: the code of the jobs, without the caller's program.

A process that multiprocessing starts first runs the caller's main module again, to find functions that are defined there. A
script without `if __name__ == "__main__"` would start its work anew in each of them. Jobs are functions of this package, so the
server's processes, which are forks of it, leave the main module alone.
"""

from multiprocessing import spawn

import tasks.corpus.arm.emit
import tasks.corpus.pool.index  # noqa: F401

spawn._fixup_main_from_name = spawn._fixup_main_from_path = lambda _: None
