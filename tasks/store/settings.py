"""Settings and credentials that a person keeps in a file `.env`, the same for every command and every host."""

import os
from pathlib import Path

from dotenv import load_dotenv

LOOPBACK = "127.0.0.1,localhost,::1"


def load_settings() -> None:
    """Add to the environment what the nearest `.env` above this package says; what is set already stays.

    No proxy is asked for this machine's own servers: NO_PROXY gets the loopback's names.
    """
    nearest = next((f / ".env" for f in Path(__file__).resolve().parents if (f / ".env").is_file()), None)
    if nearest:
        load_dotenv(nearest)
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not given.startswith(LOOPBACK):
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (LOOPBACK, given)))
