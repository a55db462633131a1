"""How a training ends, for whoever started it: every end has an exit status, and a sentence where something went wrong."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tasks.errors import BusyError, DamagedError, DiskError, InputError, SupersededError, TrainingError
from tasks.escaping import plain
from tasks.records.job import BUSY, FAILED, INPUT, SUPERSEDED
from tasks.records.layout import FAILURE, FAILURE_BYTES


def outcome(job_file: Path, work: Callable[[], int]) -> int:
    """The exit status of `work`, or of what it raised, which is said in the log and in `failure.json` beside the job."""
    try:
        return work()
    except (InputError, DamagedError) as error:
        return _report(job_file, INPUT, error)
    except SupersededError as error:
        return _report(job_file, SUPERSEDED, error)
    except BusyError as error:
        return _report(job_file, BUSY, error)
    except Exception as error:  # every end has a status and a sentence
        return _report(job_file, FAILED, error)


def _report(job_file: Path, status: int, error: BaseException) -> int:
    """Say what went wrong: one sentence for people, and a traceback where it may be our fault."""
    if status == FAILED and not isinstance(error, DiskError | TrainingError):
        traceback.print_exc()
    message = str(error) or type(error).__name__
    print(plain(message), file=sys.stderr, flush=True)
    path = job_file.with_name(FAILURE)
    with contextlib.suppress(OSError), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        if not file.read().strip():  # the first rank to fail knows why
            file.seek(0)
            file.write(json.dumps({"status": status, "message": message[:2_000]}).encode().ljust(FAILURE_BYTES))
    return status
