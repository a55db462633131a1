"""How long work tells its caller where it is, and how the caller tells it to stop; what stands behind either is theirs."""

from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, done, total, counters): `done` of `total` units of a named stage, with counters such as bytes read."""


def silent(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
    """The default: tell nobody."""


class Evaluations:
    """Puts a training's evaluations into words, each once; one that was there at the first call is that of an earlier attempt."""

    def __init__(self) -> None:
        self._last: list[float | None] = []

    def news(self, done: int, total: int, counters: Mapping[str, float]) -> str | None:
        """Step 100 of 153, loss 3.6191, 1.6114 bits per byte; None if nothing was evaluated since the last call."""
        bpb = counters.get("bpb")
        new = bool(self._last) and bpb is not None and bpb != self._last[0]
        self._last = [bpb]
        loss = f", loss {counters['loss']:.4f}" if "loss" in counters else ""
        return f"step {done:,} of {total:,}{loss}, {bpb:.4f} bits per byte" if new else None


Stop = Callable[[], bool]
"""Whether somebody wants the work to save what it has and end. Asked a few times a second."""


def never() -> bool:
    """The default: nobody does."""
    return False
