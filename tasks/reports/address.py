"""Where a stack serves the report of a run, a verdict or a ladder over HTTP."""

import os
from pathlib import Path
from urllib.parse import quote, urlencode

from tasks.store.root import DEFAULT_ROOT, Root, root_url

VARIABLE = "FABRATING_REPORTS"
"""The address of the stack's reports, which its processes and the shells that source its `env` have."""


def address(root: Root, kind: str, id: str, default: str = DEFAULT_ROOT) -> str | None:
    """The address of a report; None where no stack serves it. Whoever opens it is asked for the stack's password.

    `default`: the root of the stack.
    """
    base = os.environ.get(VARIABLE)
    if not base:
        return None
    query = "" if root.url == root_url(default) else f"?{urlencode({'root': root.url})}"
    return f"{base.rstrip('/')}/{kind}/{quote(id)}{query}"


def where(root: Root, kind: str, id: str, path: Path, default: str = DEFAULT_ROOT) -> str:
    """The address of a report, or that of its file where no stack serves it."""
    return address(root, kind, id, default) or path.as_uri()
