"""How a training ends, for whoever started it: every end has an exit status, and a sentence where something went wrong."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tasks.errors import (
    FULL,
    BusyError,
    DamagedError,
    DeniedError,
    DiskError,
    InputError,
    SupersededError,
    TrainingError,
    disk_fault,
)
from tasks.escaping import plain
from tasks.records.job import BUSY, DENIED, DISK, FAILED, INPUT, SUPERSEDED
from tasks.records.layout import FAILURE, FAILURE_BYTES

ENDS: tuple[tuple[type[Exception], int], ...] = (
    (DeniedError, DENIED),
    (InputError, INPUT),
    (DamagedError, INPUT),
    (SupersededError, SUPERSEDED),
    (BusyError, BUSY),
    (DiskError, DISK),
)
"""Errors with an exit status of their own, the narrower ones first; that of all others is FAILED, and a TrainingError to the caller."""


def outcome(job_file: Path, work: Callable[[], int]) -> int:
    """The exit status of `work`, or of what it raised, which is said in the log and in `failure.json` beside the job."""
    try:
        return work()
    except Exception as error:  # every end has a status and a sentence
        told = _told(error, job_file.parent)
        return _report(job_file, next((status for kind, status in ENDS if isinstance(told, kind)), FAILED), told)


def _told(error: Exception, folder: Path) -> Exception:
    """The error, or that of a full disk in a sentence."""
    if not isinstance(error, OSError) or error.errno not in FULL or (fault := disk_fault(error)) is None:
        return error
    what, remedy = fault
    return DiskError(
        f"{what} at {error.filename or folder}: {remedy} there and run again, which resumes from the newest checkpoint."
    )


def error_of(status: int, message: str) -> Exception:
    """The error that ended a training with this status, as its caller raises it."""
    return next((kind for kind, known in ENDS if known == status), TrainingError)(message)


def _report(job_file: Path, status: int, error: BaseException) -> int:
    """Say what went wrong: one sentence for people, and a traceback where it may be our fault."""
    message = str(error) or type(error).__name__
    with contextlib.suppress(OSError):  # the log may lie on the disk that is full
        if status == FAILED and not isinstance(error, TrainingError):
            traceback.print_exc()
        print(plain(message), file=sys.stderr, flush=True)
    path = job_file.with_name(FAILURE)
    with contextlib.suppress(OSError), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        if not file.read().strip():  # the first rank to fail knows why
            file.seek(0)
            file.write(json.dumps({"status": status, "message": message[:2_000]}).encode().ljust(FAILURE_BYTES))
    return status
