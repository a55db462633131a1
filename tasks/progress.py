"""How long work tells its caller where it is, and how the caller tells it to stop; what stands behind either is theirs."""

import time
from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, done, total, counters): `done` of `total` units of a named stage, with counters such as bytes read."""


def silent(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
    """The default: tell nobody."""


def lasting(seconds: float) -> str:
    """A duration as people say it: 41 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Evaluations:
    """Puts a training's evaluations into words, each once; one that was there at the first call is that of an earlier attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._last: list[float | None] = []
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def news(self, done: int, total: int, counters: Mapping[str, float]) -> str | None:
        """Step 100 of 153, loss 3.6191, 1.6114 bits per byte, 12 min left; None if nothing was evaluated since the last call."""
        now, bpb = self._clock(), counters.get("bpb")
        if self._first is None or done < self._first[1]:
            self._first = now, done
        began, before = self._first
        left = f", {lasting((now - began) / (done - before) * (total - done))} left" if before < done < total else ""
        new = bool(self._last) and bpb is not None and bpb != self._last[0]
        self._last = [bpb]
        loss = f", loss {counters['loss']:.4f}" if "loss" in counters else ""
        return f"step {done:,} of {total:,}{loss}, {bpb:.4f} bits per byte{left}" if new else None


Stop = Callable[[], bool]
"""Whether somebody wants the work to save what it has and end. Asked a few times a second."""


def never() -> bool:
    """The default: nobody does."""
    return False
