"""How long work tells its caller where it is, and how the caller tells it to stop; what stands behind either is theirs."""

from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, done, total, counters): `done` of `total` units of a named stage, with counters such as bytes read."""


def silent(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
    """The default: tell nobody."""


Stop = Callable[[], bool]
"""Whether somebody wants the work to save what it has and end. Asked a few times a second."""


def never() -> bool:
    """The default: nobody does."""
    return False
