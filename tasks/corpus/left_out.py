"""Files that a pool leaves out because they cannot be used: named in the log, in manifests, and in plans."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tasks.corpus.parquet.footer import BadFile
from tasks.errors import InputError
from tasks.store.blobs import Blobs

NAMED = 20
"""Files that are named; the others are counted."""


@dataclass
class LeftOut:
    """Files of a store that were met and cannot be used; the first one stops the run unless they may be skipped."""

    source: Blobs
    skip: bool
    reasons: dict[str, str] = field(default_factory=dict)
    """By name of the blob, such as "is damaged (...)"."""

    def add(self, error: BadFile) -> None:
        """Raises InputError naming the file unless it may be skipped."""
        if not self.skip:
            raise InputError(
                f"{self.source.address(error.name)} {error.reason}: repair or remove the file, or set skip_bad_files."
            ) from error
        self.reasons.setdefault(error.name, error.reason)


def left_out_facts(reasons: Mapping[str, str]) -> dict[str, Any]:
    """What a manifest or a plan says of files left out, given the reason for each: their number, and the first ones."""
    return {"bad_files_count": len(reasons), "bad_files": dict(islice(sorted(reasons.items()), NAMED))}


def warn(what: str, reasons: Mapping[str, str]) -> None:
    """Log the files that `what` was made without, if any."""
    if reasons:
        facts = left_out_facts(reasons)
        named = "; ".join(f"{name} {reason}" for name, reason in facts["bad_files"].items())
        more = f"; and {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else ""
        logging.getLogger("fabrating").warning(
            "%s is made without %s that cannot be used: %s%s.",
            what,
            f"{len(reasons):,} files" if len(reasons) > 1 else "a file",
            named,
            more,
        )
