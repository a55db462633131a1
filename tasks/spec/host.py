"""A machine that becomes a worker."""

import os
from typing import Annotated, Literal

from pydantic import Field

from tasks.spec.base import ANY, Dollars, Line, Name, Shape, Spec, Url
from tasks.spec.training import Attention


class Host(Spec):
    """A machine that is reached by SSH: where its account is, how it is trusted, and what it is to become."""

    name: Name = Field("gpu1", description="Readable name; the worker shows up under it in the work pool.")
    address: Annotated[str, Shape(rf"(?!-)(?:(?![\s@]){ANY}){{1,255}}", "the address of a host")] = Field(
        description="Host name, IP address, or alias of ~/.ssh/config."
    )
    port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="Port of its SSH server; empty: what ~/.ssh/config says, else 22."
    )
    user: Annotated[str, Shape(rf"(?!-)(?:(?![\s@:]){ANY}){{1,255}}", "the name of an account")] | None = Field(
        None, description="The account that runs the worker; empty: what ~/.ssh/config says, else root."
    )
    key_file: Line | None = Field(
        None,
        description="Private key file on this machine; it stays here. Empty: ssh-agent, then the usual files in ~/.ssh.",
    )
    host_key: Annotated[str, Shape(r"SHA256:[A-Za-z0-9+/]{43}", "a fingerprint: SHA256: and 43 characters")] | None = (
        Field(
            None,
            description="Fingerprint of the host's key, as `ssh-keygen -lf` shows it. Empty: trust and pin the key seen first.",
        )
    )
    folder: Annotated[str, Shape(rf"(?=.*[^/.~ ]){ANY}{{1,1000}}", "a folder: a path with a name in it")] = Field(
        "fabrating",
        description="Everything is installed here: below the home directory, or an absolute path.",
    )
    root: Url | None = Field(
        None, description="Root URL of artifacts as the host sees it; empty: the folder's own `root`, on its disk."
    )
    gpus: int = Field(1, ge=0, le=8, description="GPUs that one run takes; 0 makes it a worker for CPU work.")
    engines: tuple[Literal["builtin", "nanochat"], ...] = Field(
        ("builtin",),
        max_length=2,
        description="nanochat adds upstream at its pinned commit, in an environment of its own.",
    )
    python_environment: Line | None = Field(
        None,
        description="A Python environment that is on the host already, with PyTorch and the other packages: used as it is, "
        "nothing but FabRating itself is added. Empty: made from the lock file.",
    )
    find_links: (
        Annotated[
            str,
            Shape(
                rf"(https?://|file:///|/){ANY}{{1,2000}}",
                "where wheels lie: a path that begins with /, or a URL with https://, http:// or file:///",
            ),
        ]
        | None
    ) = Field(
        None,
        description="Folder on the host (its absolute path) or URL with wheels that are taken first, the package index for what is lacking there.",
    )
    torch_index: Line | None = Field(
        None,
        description="Package index for PyTorch; empty: the one that has the build for the host's driver, or for none.",
    )
    attention: Attention = Field(
        "auto",
        description="Flash Attention for the trainer. auto: where find_links, or the package index, has a wheel for the host, it is installed, "
        "measured against cuDNN, and taken if it shortens a training of a quarter of an hour, its start included. fa3 and fa4 want that one. cudnn: none.",
    )
    nanochat_source: Line = Field(
        "https://github.com/karpathy/nanochat.git",
        description="Git URL as the host sees it, or a tar archive on this machine that is uploaded.",
    )
    nanochat_commit: Annotated[str, Shape(r"[0-9a-f]{7,40}", "a commit: 7 to 40 hexadecimal digits")] = Field(
        "92d63d4", description="Commit of nanochat that is checked out on the host."
    )
    way_back: Literal["direct", "tunnel"] = Field(
        "tunnel",
        description="How the worker reaches the server. direct: at its address, by HTTPS. tunnel: through a reverse SSH tunnel "
        "that this machine keeps open.",
    )
    server: Annotated[
        str, Shape(rf"https?://(?:(?![\s/]){ANY}){{1,255}}(/(?:(?!\s){ANY}){{0,1000}})?", "the URL of a Prefect API")
    ] = Field(
        default_factory=lambda: os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"),
        description="Prefect API, as the host sees it (direct) or as this machine does (tunnel). Empty: the one that "
        "runs this.",
    )
    tunnel_port: int = Field(4_300, ge=1, le=65_535, description="Port of the tunnel's end on the host's loopback.")
    work_pool: Line = Field("gpu", description="Work pool that the worker serves.")
    dollars_per_hour: Dollars = Field(3.0, description="Price of the whole host, for the report.")
