"""A server with the protocol of S3 (moto), which also stands in for Google Cloud Storage.

obstore speaks Google's XML interface, which is S3's with other names for conditions: `x-goog-if-generation-match: 0` is translated to
`If-None-Match: *`, another generation to `If-Match` of the ETag that it was made of. moto looks for an object and writes it in two steps, so requests take turns here. Of a bucket whose name begins with `old` conditions are forgotten, as some services do.
"""

import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import moto.server
from werkzeug.serving import make_server

Environment = MutableMapping[str, Any]


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server of our own."""
    turn = threading.Lock()
    inner = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)

    def translated(environment: Environment, start: Callable[..., Any]) -> Any:
        generation = environment.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)
        if generation == "0":
            environment["HTTP_IF_NONE_MATCH"] = "*"
        elif generation:
            environment["HTTP_IF_MATCH"] = f'"{generation}"'
        if environment["PATH_INFO"].startswith("/old"):
            environment.pop("HTTP_IF_NONE_MATCH", None)

        def answered(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            tags = [("x-goog-generation", value.strip('"')) for name, value in headers if name.lower() == "etag"]
            return start(status, headers + tags, *rest)

        with turn:
            return inner(environment, answered)

    server = make_server("127.0.0.1", 0, translated, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
