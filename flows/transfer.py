"""Artifacts from host to host, and to and from the blob store."""

import contextlib
from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.deployed import as_deployed
from tasks.hosts import report, steps
from tasks.hosts.machine import Local
from tasks.hosts.ssh import Remote
from tasks.spec import Host, Line, Url
from tasks.steps import Sealed, key, show_markdown
from tasks.store.root import Root


@flow(name="transfer", flow_run_name="{names[0]}")
@as_deployed
def shards(
    names: Annotated[list[Line], Field(min_length=1, max_length=10_000)],
    source: Host | None = None,
    target: Host | None = None,
    source_root: Url | Literal[""] = "",
    target_root: Url | Literal[""] = "",
    streams: Annotated[int, Field(ge=1, le=32)] = 4,
) -> list[dict[str, object]]:
    """Move artifacts (or folders of shards) between two machines, or between a machine and the blob store.

    Two hosts that reach each other exchange the bytes directly, others through this machine. Every file is compared with its
    SHA-256 and sent again when it differs; a transfer that was cut resumes where it stopped.

    Args:
        names: Artifacts by name below the root, such as arms/top16-0a1b2c3d4e/text.
        source: The host that has them; empty: this machine, or the blob store that source_root names.
        target: The host that gets them; empty: this machine, or the blob store that target_root names.
        source_root: Folder (a path, or file:// of one) or az:// URL; empty: the host's own root.
        target_root: Folder (a path, or file:// of one) or az:// URL; empty: the host's own root.
        streams: Parallel rsync streams.
    """
    with contextlib.ExitStack() as stack:
        ends = [
            (stack.enter_context(Remote(host)) if host else Local(), root or _own_root(host))
            for host, root in ((source, source_root), (target, target_root))
        ]
        (there, from_root), (here, to_root) = ends
        moved = [steps.move(name, Sealed(there), from_root, Sealed(here), to_root, streams) for name in names]
    show_markdown(key("transfer", names[0]), report.moved(moved), "What was moved")
    return [
        {"name": one.name, "bytes": one.bytes, "sent": one.sent, "seconds": one.seconds, "way": one.way}
        for one in moved
    ]


def _own_root(host: Host | None) -> str:
    if host is None:
        return Root().url
    return host.root or f"{host.folder}/root"
