"""Who gets in: the secrets that a stack makes for itself, and how Prefect's clients reach a server that asks for a password."""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks.store.artifact import write_atomic

URL, PASSWORD, PAGES = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_UI_URL"


def secret(file: Path, make: Callable[[], str]) -> str:
    """The secret in a file that only its owner can read; made by `make` where there is none yet."""
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text().strip():
            return known
    write_atomic(file, make() + "\n", 0o600)
    return file.read_text().strip()


@contextlib.contextmanager
def connected(environment: Mapping[str, str]) -> Iterator[None]:
    """In this block Prefect's clients use the server that `environment` names, with its password if there is one."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    settings = {PREFECT_API_URL: environment[URL]}
    if password := environment.get(PASSWORD):
        settings[PREFECT_API_AUTH_STRING] = password
    with temporary_settings(settings):
        yield


def is_open(api: str) -> bool:
    """Whether the server at `api` answers whoever asks, without a password."""
    return reachable(f"{api}/admin/version", 10)


def reachable(url: str, seconds: float) -> bool:
    """Whether there is an answer within so many seconds, and no refusal, to who asks without a password."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as reply:
            return bool(reply.status == 200)
    except OSError:  # a refusal, 401, is one as well
        return False
