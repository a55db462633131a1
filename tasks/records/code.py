"""Which code made something: a commit for people, and versions that are part of names and so decide what is reused."""

import contextlib
import subprocess
from pathlib import Path

from tasks.records.record import Record
from tasks.store.artifact import code_version

PREPARATION_VERSION = 5
"""Raised by every change that alters the bytes of an arm's text, tokenizer, holdout or packed rows. Part of a pool's name,
and so of its arms' and runs' names."""
READ_VERSIONS = (3, 4, 5)
"""Preparation versions whose pools a verdict can still add to: index, columns and holdout are readable since version 3."""
NEAR_VERSION = 1
"""Raised by every change of the rule by which documents are near copies. A part of the names of what it found."""
TRAINING_VERSION = 2
"""Raised by every change that alters the weights or scores of a run on the same rows. A part of a run's name."""


class Code(Record):
    """The code that a process ran. Entries from before there were versions know only the commit."""

    code: str
    """The installed version of the package."""
    commit: str | None = None
    preparation_version: int | None = None
    training_version: int | None = None

    @classmethod
    def of_this_process(cls) -> "Code":
        return cls(
            code=code_version(),
            commit=commit(),
            preparation_version=PREPARATION_VERSION,
            training_version=TRAINING_VERSION,
        )


def commit() -> str | None:
    """The commit of this checkout, with a + when files differ from it; None outside of a checkout."""
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        head = _git(here, "rev-parse", "--short=10", "HEAD").strip()
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no").strip() else "")
    return None


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
