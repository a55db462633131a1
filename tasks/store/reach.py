"""Whether a store's host exists: said at once, where the store's client would ask for minutes."""

import socket
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies

from tasks.errors import InputError, StoreError

PATIENCE = 8.0


def require_host(url: str, endpoint: str) -> None:
    """Raises InputError when the host of `endpoint` does not exist, StoreError when no name server answers within 8 s.

    Where a proxy is set, that one resolves names.
    """
    host = urlsplit(endpoint).hostname or ""
    if {"http", "https", "all"} & getproxies().keys():
        return
    found: list[socket.gaierror | None] = []
    asking = Thread(target=lambda: found.append(_fault(host)), daemon=True)  # a resolver may take half a minute
    asking.start()
    asking.join(PATIENCE)
    fault = found[0] if found else socket.gaierror(socket.EAI_AGAIN, "no name server answers")
    if fault is None:
        return
    what = f"{url} cannot be reached: its host {host} does not resolve ({fault.strerror})"
    if fault.errno == socket.EAI_AGAIN:
        raise StoreError(f"{what}: check the network and the account's name.")
    raise InputError(f"{what}: check the account's name.")


def _fault(host: str) -> socket.gaierror | None:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return error
    return None
