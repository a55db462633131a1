"""A server that answers as W&B does when it is asked whose key it is."""

import contextlib
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

GOOD, REFUSED = "600d" * 10, "badbad" * 6 + "badb"


@contextlib.contextmanager
def service() -> Iterator[str]:
    """The URL of a server that answers as W&B does when it is asked whose key it is; GOOD is somebody's."""

    class Viewer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            good = self.headers["Authorization"] == f"Basic {b64encode(f'api:{GOOD}'.encode()).decode()}"
            self.send_response(200 if good else 401)
            self.end_headers()
            self.wfile.write(b'{"data": {"viewer": {"id": "somebody"}}}' if good else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Viewer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def wandb_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Such a service is W&B in this test."""
    with service() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        yield
