"""Ports on loopback: free ones, and waiting until ours answers."""

import socket
import time
from collections.abc import Callable

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether nobody listens on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(wanted: int, tries: int = 100) -> int:
    """The wanted port, or the next free one above it; with 0, or when all those are taken, any free one."""
    for port in range(wanted, min(wanted + tries, 65_536)) if wanted else ():
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait(ready: Callable[[], bool], alive: Callable[[], bool], seconds: float) -> bool:
    """Ask until `ready`, but no longer than `seconds` and only while what is waited for is `alive`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        if not alive():
            return False
        time.sleep(0.2)
    return False
