"""What a trainer raised is what its caller raises, though only a status and a sentence pass between them."""

import errno
import io
import json
from pathlib import Path

import pytest

from tasks.engines.builtin.outcome import error_of, outcome
from tasks.errors import (
    BusyError,
    DamagedError,
    DeniedError,
    DiskError,
    InputError,
    StoreError,
    SupersededError,
    TrainingError,
)
from tasks.records.layout import FAILURE

FULL = OSError(errno.ENOSPC, "No space left on device", "/data/runs/r/metrics.jsonl")


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (InputError("a value"), InputError, "a value"),
        (DamagedError("a file"), InputError, "a file"),
        (DeniedError("renew"), DeniedError, "renew"),
        (SupersededError("taken"), SupersededError, "taken"),
        (BusyError("in use"), BusyError, "in use"),
        (DiskError("free some"), DiskError, "free some"),
        (FULL, DiskError, "No space is left at /data/runs/r/metrics.jsonl: free some there and run again"),
        (StoreError("away"), TrainingError, "away"),
        (ZeroDivisionError("a bug"), TrainingError, "a bug"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else None,
)
def test_an_error_arrives_as_what_it_was_though_its_log_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[Exception], words: str
) -> None:
    def work() -> int:
        raise raised

    with Path("/dev/full").open("wb", buffering=0) as log:
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(log, write_through=True))
        status = outcome(tmp_path / "job.json", work)
        monkeypatch.undo()
    said = json.loads((tmp_path / FAILURE).read_text())
    assert said["status"] == status
    found = error_of(status, said["message"])
    assert type(found) is kind and str(found).startswith(words)
