"""Files of a web server as an object store, read only. It has no listing, so the URL names a list of them that lies there.

A `.txt` has a name a line; a `.json` is a list of names, or an artifact's manifest. Names are relative to the list's folder. Sizes
and ETags come from the server, which must answer to ranges.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import HTTPStore

from tasks.errors import InputError
from tasks.store.artifact import safe_relative
from tasks.store.blobs import CLIENT, PAGE, RETRIES, Blob, Blobs, brief
from tasks.store.reach import require_host
from tasks.store.urls import Location

if TYPE_CHECKING:
    from obstore.store import ClientConfig

PARALLEL = 32


class WebBlobs(Blobs):
    """The files that a list on a web server names."""

    def __init__(self, place: Location):
        require_host(place.url, place.container)
        folder, _, self._list = place.folder.rpartition("/")
        client: ClientConfig = {**CLIENT, "allow_http": place.container.startswith("http://")}
        store = HTTPStore.from_url(f"{place.container}/{folder}", client_options=client, retry_config=RETRIES)
        super().__init__(replace(place, url=place.url.removesuffix(f"/{self._list}")), store)

    def list(self, prefix: str = "", suffix: str = "") -> list[Blob]:
        """The files on the list below `prefix` with names ending in `suffix`, by name. Raises InputError when it or one of them is not there."""
        raw = self.read_if_exists(self._list)
        if raw is None:
            raise InputError(f"The list {self.address(self._list)} is not there: check the URL.")
        names = sorted(
            {
                name
                for name in _names(self.address(self._list), raw)
                if name.startswith(prefix) and name.endswith(suffix)
            }
        )
        with ThreadPoolExecutor(PARALLEL) as threads:
            return list(threads.map(self._blob, names))

    def peek(self) -> int:
        """How many files there are, at most `PAGE`."""
        return min(PAGE, len(self.list()))

    def _blob(self, name: str) -> Blob:
        try:
            found = obstore.head(self._store, name)
        except (BaseError, OSError) as error:
            raise InputError(
                f"{self.address(name)} is on the list {self._list}, but cannot be read ({brief(error)}): correct the list."
            ) from error
        return Blob(name, found["size"], found["e_tag"] or "")


def _names(url: str, raw: bytes) -> list[str]:
    try:
        if url.endswith(".txt"):
            return [str(safe_relative(line)) for line in map(str.strip, raw.decode().splitlines()) if line]
        given: Any = json.loads(raw)
        files = given["files"] if isinstance(given, dict) else given
        return [str(safe_relative(file["path"] if isinstance(file, dict) else file)) for file in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The list {url} cannot be read ({error}): give a .txt with a name a line, or a .json with a list of names or a manifest."
        ) from error
