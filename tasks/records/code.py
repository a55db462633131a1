"""Which code made something: a commit for people, and two versions that are a part of names and so decide what is reused."""

import contextlib
import subprocess
from pathlib import Path

from tasks.records.record import Record
from tasks.store.artifact import code_version

PREPARATION_VERSION = 2
"""Raised by every change that alters the bytes of an arm's text, tokenizer, holdout or packed rows. A part of a pool's name,
and so of its arms' and runs'."""
TRAINING_VERSION = 1
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

    @property
    def versions(self) -> tuple[int, int] | None:
        """(preparation, training), if both are known."""
        known = self.preparation_version, self.training_version
        return None if known[0] is None or known[1] is None else (known[0], known[1])


def commit() -> str | None:
    """The commit of this checkout, with a + when files differ from it; None outside of a checkout."""
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        head = _git(here, "rev-parse", "--short=10", "HEAD").strip()
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no").strip() else "")
    return None


def other_code(a: Code, b: Code) -> str | None:
    """How the code of two processes differs, "x against y"; None if it does not, or if too little is known.

    The versions decide if both have them: a commit that does not change the output does not count.
    """
    if a.versions and b.versions:
        differ = a.versions != b.versions
    else:
        differ = bool(a.commit and b.commit and a.commit != b.commit)
    return f"{_shown(a)} against {_shown(b)}" if differ else None


def _shown(code: Code) -> str:
    by_commit = f"commit {code.commit}" if code.commit else f"package {code.code}"
    if code.versions is None:
        return by_commit
    preparation, training = code.versions
    return f"{by_commit} (preparation {preparation}, training {training})"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
