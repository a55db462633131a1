"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable


def within(seconds: float, condition: Callable[[], object], pause: float = 0.1) -> bool:
    """Whether the condition came true within that time; it is asked every `pause` seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False
