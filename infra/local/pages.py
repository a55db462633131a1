"""The server of a stack's reports: `python -m infra.local.pages PORT ROOT`, on loopback, behind the password of the stack.

A proxy may serve it below a prefix: its links are relative.

/                     links to all runs, verdicts and ladders under the root
/runs/RUN             the report of a run, as it stands now
/verdicts/VERDICT     the report of a verdict
/ladders/LADDER       the report of a ladder
...?root=URL          the same, under another root
"""

import base64
import hmac
import os
import re
import sys
import threading
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

from infra.local import access, ports
from tasks.errors import DamagedError, InputError, StoreError
from tasks.escaping import visible
from tasks.records.inventory import Thing, things
from tasks.records.layout import LADDERS, REPORT, RUNS, VERDICTS
from tasks.reports.report import run_report
from tasks.store.root import Root, root_url
from tasks.store.urls import require_unsigned

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,120}")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
DRAWING = threading.Lock()
"""One report is drawn at a time: matplotlib is not thread-safe."""


class Pages(BaseHTTPRequestHandler):
    """Answers GET. `root`, `password` (NAME:PASSWORD) are set by `serve`."""

    root: str
    password: str
    timeout = 30

    def do_GET(self) -> None:
        if not self._is_let_in():
            self._answer(401, "The reports ask for the password of the stack.")
            return
        try:
            asked = urlsplit(self.path)
            parts = [unquote(part) for part in asked.path.split("/") if part]
            given = parse_qs(asked.query).get("root")
            root = Root(require_unsigned(given[0]), make=False) if given else Root(self.root)
            self._answer(200, self._page(root, parts))
        except (InputError, ValueError) as error:
            self._answer(404, str(error))
        except (DamagedError, StoreError) as error:
            self._answer(503, str(error))

    def _is_let_in(self) -> bool:
        wanted = base64.b64encode(self.password.encode())
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        return kind == "Basic" and hmac.compare_digest(given.strip().encode(), wanted)

    def _page(self, root: Root, parts: list[str]) -> str:
        if not parts:
            return contents(root, "" if root.url == root_url(self.root) else f"?root={quote(root.url, safe='')}")
        if len(parts) != 2 or not NAME.fullmatch(parts[1]):
            raise InputError("There is no such page: / lists those there are.")
        with DRAWING:
            return page(root, parts[0], parts[1])

    def _answer(self, status: int, text: str) -> None:
        body = (text if status == 200 else _html(escape(visible(text)))).encode()
        self.send_response(status)
        for name, value in {
            **HEADERS,
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(name, value)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="FabRating", charset="UTF-8"')
        self.end_headers()
        self.wfile.write(body)


def page(root: Root, kind: str, id: str) -> str:
    """The HTML of a report: a verdict's or a ladder's as it was made, a run's as the run stands now. Raises InputError when there is none."""
    if kind == RUNS:
        return run_report(root, id)
    if kind not in (VERDICTS, LADDERS):
        raise InputError(f"There are no reports of {kind}: open that of one of the {RUNS}, {VERDICTS} or {LADDERS}.")
    return root.file(Thing(kind, id).folder, REPORT).read_text()


def contents(root: Root, query: str) -> str:
    """Links to the reports of all ladders, verdicts and runs under a root."""
    parts = [f"<h1>Reports</h1><p>{escape(visible(root.url))}</p>"]
    for kind in (LADDERS, VERDICTS, RUNS):
        links = [
            f'<li><a href="{each.folder}{escape(query)}">{escape(each.id)}</a></li>' for each in things(root, kind)
        ]
        parts.append(f"<h2>{kind.capitalize()}</h2><ul>{''.join(links) or '<li>none yet</li>'}</ul>")
    return _html("".join(parts))


def _html(body: str) -> str:
    style = ":root{color-scheme:light dark}body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:48rem;padding:0 1rem}"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f"<!doctype html><html lang=en><head>{head}<title>FabRating</title><style>{style}</style></head><body>{body}</body></html>"


def serve(port: int, root: str, password: str) -> ThreadingHTTPServer:
    """A server on loopback that is ready to `serve_forever`; port 0 takes a free one.

    Raises InputError when the password is empty: the reports would be open to whoever gets through a proxy.
    """
    if not password.partition(":")[2]:
        raise InputError(f"{access.PASSWORD} has no password: set it, NAME:PASSWORD.")
    handler = type("StackPages", (Pages,), {"root": root, "password": password})
    return ThreadingHTTPServer((ports.HOST, port), handler)


if __name__ == "__main__":
    try:
        server = serve(int(sys.argv[1]), sys.argv[2], os.environ.get(access.PASSWORD, ""))
    except InputError as error:
        sys.exit(str(error))
    server.serve_forever()
