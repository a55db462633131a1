"""Which documents decide a verdict."""

import re
from collections.abc import Sequence

from tasks.errors import InputError
from tasks.records.verdict import OUTSIDE, Target

DECILES = 10
TARGETS = {
    "all": slice(0, DECILES),
    "lower half": slice(0, DECILES // 2),
    "upper half": slice(DECILES // 2, DECILES),
}
"""The targets on the holdout, by their score deciles. In the order of the strata."""
HALVES = tuple(target for target in TARGETS if target != "all")
FINGERPRINT = re.compile(r"-[0-9a-f]{10}$")


def find_target(target: str, texts: Sequence[str]) -> Target:
    """The target with the full name of its texts. `texts`: names of those that runs are scored on.

    The fingerprint at the end of a name may be left out. Raises InputError for an unknown target, and for texts that are not
    given.
    """
    if target in TARGETS:
        return target
    wanted = target.removeprefix(OUTSIDE)
    if wanted == target:
        raise InputError(f"The target {target!r} is unknown: take one of {', '.join(TARGETS)}, {OUTSIDE}NAME.")
    exact = [name for name in texts if name == wanted]
    found = exact or [name for name in texts if FINGERPRINT.sub("", name) == wanted]
    if len(found) != 1:
        given = ", ".join(texts) or "none"
        raise InputError(
            f"The target is {target!r}, but the texts from elsewhere are {given}: name one of them, or give these texts, too."
        )
    return f"{OUTSIDE}{found[0]}"
