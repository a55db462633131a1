"""Data sets on the Hugging Face Hub as an object store: `hf://organisation/dataset[@revision][/folder]`, read only.

A revision's slashes are written as %2F, but those of `refs/convert/parquet` (the branch that has every data set as Parquet) and of
`refs/pr/1` may stay, as in the Hub's own client.

The revision is resolved to a commit once, at the listing, so that what is read later is what was listed. Files are read by
HTTP ranges; a token, if the data set needs one, comes from HF_TOKEN or `hf auth login`.
"""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from obstore.store import HTTPStore

from tasks.errors import InputError
from tasks.store.blobs import CLIENT, PAGE, RETRIES, Blob, Blobs
from tasks.store.urls import Location

if TYPE_CHECKING:
    from obstore.store import ClientConfig


REVISION = re.compile(r"(refs/(?:convert/[^/]+|pr/[0-9]+)|[^/]*)/?(.*)")
"""A revision and the folder behind it."""


class HubBlobs(Blobs):
    """A folder of a data set at one commit. A blob's ETag is the hash of its content."""

    conditional = False  # a commit does not change, and the servers behind the redirect have ETags of their own

    def __init__(self, place: Location):
        repository, at, rest = place.folder.removeprefix("datasets/").partition("@")
        parts = [part for part in repository.split("/") if part]
        revision, folder = "", "/".join(parts[2:])
        if at and (found := REVISION.fullmatch(rest)):
            revision, folder = unquote(found[1]), found[2]
        if len(parts) < 2:
            raise InputError(f"The URL {place.url!r} names no data set: use hf://organisation/dataset.")
        self._repository, self._folder = "/".join(parts[:2]), folder.strip("/")
        api = HfApi(token=get_token())
        try:
            self._commit = api.dataset_info(self._repository, revision=revision or None).sha
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise InputError(
                f"{place.url} cannot be opened ({str(error).strip().splitlines()[0]}): check the name, the network, and "
                "HF_TOKEN when the data set is private."
            ) from error
        self._api = api
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        client: ClientConfig = {**CLIENT, "default_headers": headers, "allow_http": api.endpoint.startswith("http://")}
        base = f"{api.endpoint}/datasets/{self._repository}/resolve/{self._commit}/{self._folder}"
        super().__init__(place, HTTPStore.from_url(base, client_options=client, retry_config=RETRIES))

    def peek(self) -> int:
        """How many files there are, at most `PAGE`."""
        return min(PAGE, len(self.list()))

    def list(self, prefix: str = "", suffix: str = "") -> list[Blob]:
        """All files below `prefix` with names ending in `suffix`, by name."""
        folder = "/".join(part for part in (self._folder, prefix.strip("/")) if part)
        try:
            entries = list(
                self._api.list_repo_tree(
                    self._repository, folder or None, recursive=True, revision=self._commit, repo_type="dataset"
                )
            )
        except (HfHubHTTPError, OSError) as error:
            raise InputError(f"{self.url} cannot be listed ({str(error).strip().splitlines()[0]}).") from error
        start = len(self._folder) + 1 if self._folder else 0
        files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path.endswith(suffix)]
        blobs = [Blob(f.path[start:], f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in files]
        return sorted((blob for blob in blobs if self.place.takes(blob.name)), key=lambda blob: blob.name)
