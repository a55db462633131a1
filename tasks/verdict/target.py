"""Which documents decide a verdict."""

import re
from collections.abc import Sequence

from tasks.errors import InputError
from tasks.records.scores import DECILES
from tasks.records.verdict import OUTSIDE, QUESTIONS, Target

TARGETS = {
    "all": slice(0, DECILES),
    "lower half": slice(0, DECILES // 2),
    "upper half": slice(DECILES // 2, DECILES),
}
"""The targets on the holdout, by their score deciles, in the order of the strata."""
HALVES = tuple(target for target in TARGETS if target != "all")
FINGERPRINT = re.compile(r"-[0-9a-f]{10}$")


def find_target(target: str, texts: Sequence[str], questions: Sequence[str]) -> Target:
    """The target with the full name of its texts or questions. `texts`, `questions`: names of those that runs are scored on.

    The fingerprint at the end of a name may be left out. Raises InputError for an unknown target, and for texts or questions that
    are not given.
    """
    if target in TARGETS:
        return target
    for prefix, names, what in ((OUTSIDE, texts, "texts from elsewhere"), (QUESTIONS, questions, "questions")):
        if target.startswith(prefix):
            return prefix + _named(target, target.removeprefix(prefix), names, what)
    raise InputError(
        f"The target {target!r} is unknown: take one of {', '.join(TARGETS)}, {OUTSIDE}NAME, {QUESTIONS}NAME."
    )


def unmarked(name: str) -> str:
    """A name of texts or questions, or a target, without the fingerprint at its end."""
    return FINGERPRINT.sub("", name)


def _named(target: str, wanted: str, names: Sequence[str], what: str) -> str:
    exact = [name for name in names if name == wanted]
    found = exact or [name for name in names if unmarked(name) == wanted]
    if len(found) != 1:
        given, kind = ", ".join(names) or "none", what.split()[0]
        raise InputError(
            f"The target is {target!r}, but the {what} are {given}: name one of them, or give these {kind}, too."
        )
    return found[0]
