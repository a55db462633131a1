"""A proxy in front of a blob service that answers as a bad network, a busy store or an expired token would.

It hands on every request as it is and writes down what it answered. While a `Trouble` is set, a share of the requests for
blobs meets it. The blob service behind it is the real one: only the way there is bad.
"""

import contextlib
import http.client
import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

from infra.local.ports import HOST

Kind = Literal["refuse", "reset", "slow", "truncate", "deny", "change"]
CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}
"""Headers that are between two ends of one connection; the proxy writes its own."""
ERROR = '<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
BUSY = (503, "ServerBusy", "The server is currently unable to receive requests. Please retry your request.")
EXPIRED = (
    403,
    "AuthenticationFailed",
    "Server failed to authenticate the request. Signature not valid in the specified time frame.",
)
OTHER = (412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")


@dataclass(frozen=True)
class Trouble:
    """What a share of the requests meets.

    refuse: 503. reset: the connection is reset instead of an answer. slow: the answer begins after `seconds`, its body
    takes as long again. truncate: half of the body that Content-Length promises, then the end. deny: 403, as for a SAS
    token that expired. change: 412, as if the blob no longer had the ETag that a read asks for.
    """

    kind: Kind
    share: float = 1.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """One answered request. `start`, `end`: the range [start, end) of a read; `whole`: all of its body left the proxy."""

    at: float
    method: str
    path: str
    start: int
    end: int
    status: int
    bytes: int
    whole: bool
    trouble: Kind | None

    @property
    def read(self) -> tuple[str, int, int] | None:
        """Which bytes of which blob were delivered whole, if any were."""
        delivered = self.method == "GET" and self.status in (200, 206) and self.whole and "comp=" not in self.path
        return (self.path, self.start, self.end) if delivered and self.end > self.start else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *request: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # as when a client was killed
            super().handle_error(*request)


class Proxy:
    """The proxy on a port of its own, in threads of this process."""

    def __init__(self, upstream: int, seed: int = 0):
        self.answers: list[Answer] = []
        self._upstream, self._random = upstream, random.Random(seed)
        self._trouble: Trouble | None = None
        self._lock = threading.Lock()
        self._started = False
        self._server = _Server((HOST, 0), self._handler())
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Listen, until `close`."""
        self._started = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop listening; a second call changes nothing."""
        if self._started:
            self._server.shutdown()  # which waits for ever for what never served
        self._server.server_close()

    @contextlib.contextmanager
    def trouble(self, kind: Kind, share: float = 1.0, seconds: float = 0.0) -> Iterator[None]:
        """Make this trouble for as long as the block lasts."""
        self._trouble = Trouble(kind, share, seconds)
        try:
            yield
        finally:
            self._trouble = None

    def met(self, since: float = 0.0) -> list[Answer]:
        """The answers since a time (seconds of the epoch) that met trouble, in order."""
        return [answer for answer in list(self.answers) if answer.trouble and answer.at >= since]

    def draw(self) -> Trouble | None:
        """The trouble that the next request meets, if any."""
        trouble = self._trouble
        with self._lock:
            return trouble if trouble and self._random.random() < trouble.share else None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the blob service: status, headers, body."""
        connection = http.client.HTTPConnection(HOST, self._upstream, timeout=60)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass  # the answers are the log

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with contextlib.suppress(ConnectionError, TimeoutError):
                    _answer(proxy, self, body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

        return Handler


def _answer(proxy: Proxy, request: BaseHTTPRequestHandler, body: bytes) -> None:
    trouble = proxy.draw()
    kind = trouble.kind if trouble else None
    headers = {name: value for name, value in request.headers.items() if name.lower() not in CONNECTION}
    if kind == "reset":
        _note(proxy, request, 0, 0, False, kind)
        return _reset(request)
    changed = kind == "change" and "If-Match" in request.headers
    if kind in ("refuse", "deny") or changed:
        status, code, message = OTHER if changed else BUSY if kind == "refuse" else EXPIRED
        data = ERROR.format(code=code, message=message).encode()
        found = [("Content-Type", "application/xml"), ("x-ms-error-code", code), ("Server", "proxy")]
    else:
        status, found, data = proxy.forward(request.command, request.path, headers, body)
    request.send_response_only(status)
    length = dict((name.lower(), value) for name, value in found).get("content-length", "0")
    for name, value in found:
        if name.lower() not in CONNECTION:
            request.send_header(name, value)
    bodiless = request.command == "HEAD"
    request.send_header("Content-Length", length if bodiless else str(len(data)))
    if bodiless:
        data = b""
    if kind == "slow" and trouble:
        time.sleep(trouble.seconds)
    request.end_headers()
    cut = kind == "truncate" and len(data) > 1
    sent = data[: len(data) // 2] if cut else data
    if kind == "slow" and trouble and len(sent) > 1:
        request.wfile.write(sent[: len(sent) // 2])
        request.wfile.flush()
        time.sleep(trouble.seconds)
        request.wfile.write(sent[len(sent) // 2 :])
    else:
        request.wfile.write(sent)
    request.wfile.flush()
    _note(proxy, request, status, len(sent), not cut, kind)
    if cut:
        request.close_connection = True


def _note(
    proxy: Proxy, request: BaseHTTPRequestHandler, status: int, size: int, whole: bool, kind: Kind | None
) -> None:
    asked = request.headers.get("x-ms-range") or request.headers.get("Range") or ""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.strip())
    start = int(found[1]) if found else 0
    parts = urlsplit(request.path)
    comp = f"?{parts.query}" if "comp=" in parts.query else ""
    path = unquote(parts.path) + comp
    proxy.answers.append(Answer(time.time(), request.command, path, start, start + size, status, size, whole, kind))


def _reset(request: BaseHTTPRequestHandler) -> None:
    """Close with a reset instead of an orderly end: the peer sees `connection reset`."""
    request.close_connection = True
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
