"""How long work tells its caller where it is; what is done with that (a bar, a log line, a Prefect artifact) is theirs."""

from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, done, total, counters): `done` of `total` units of a named stage, with counters such as bytes read."""


def silent(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
    """The default: tell nobody."""
