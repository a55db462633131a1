"""An artifact's copy in a remote store: written with its manifest last, fetched, compared with its checksums.

SHA-256 and ETag of objects whose content is known are kept in a small file on this machine, a line each: an object that still
has its ETag is neither read nor sent again.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from tasks.errors import DamagedError
from tasks.store.artifact import (
    MANIFEST,
    FileRecord,
    Manifest,
    has_size,
    safe_relative,
    sha256_file,
    sync,
    sync_folders,
)
from tasks.store.blobs import Blob, Blobs

PARALLEL = 8
ATTEMPTS = 2
"""How often a file that arrives wrong is fetched before its object counts as damaged."""


class Mirror:
    """The copy of the artifact `name` in `store`. `known`: the file of what objects hold."""

    def __init__(self, store: Blobs, name: str, known: Path):
        self._store, self._name, self._known = store, name, known
        self._lock = Lock()

    def manifest(self) -> Manifest | None:
        """The manifest of the copy, or None. Raises DamagedError when it cannot be used."""
        raw = self._store.read_if_exists(f"{self._name}/{MANIFEST}")
        return Manifest.from_json(raw, f"{self._store.url}/{self._name}/{MANIFEST}") if raw is not None else None

    def upload(self, folder: Path, manifest: Manifest, permit: Callable[[], None], replace: bool = False) -> int | None:
        """Copy the artifact in `folder`, but for files that an attempt that was cut brought there. Returns the bytes that were sent.

        `permit` is called before each object and raises when nothing may be published. Returns None when a copy with other
        content is there or comes first, which stays unless `replace`.
        """
        permit()
        there = self.manifest()
        if there is not None and there.content == manifest.content:
            return 0
        listed = self._listed()
        if there is not None:
            if not replace:
                return None
            self._damaged([record for record in manifest.files if record in there.files])  # those that are right stay
            self.discard()
        known = self._read()
        missing = [record for record in manifest.files if not _holds(listed.get(record.path), record, known)]

        def put(record: FileRecord) -> None:
            permit()
            self._note(record, self._store.upload(folder / record.path, f"{self._name}/{record.path}"))

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(put, missing))
        permit()
        if not self._store.create(f"{self._name}/{MANIFEST}", (folder / MANIFEST).read_bytes()):
            there = self.manifest()
            if there is None or there.content != manifest.content:
                return None
        return sum(record.bytes for record in missing)

    def download(self, manifest: Manifest, folder: Path) -> None:
        """Fetch the files that `folder` lacks, compare and sync them. Raises DamagedError naming an object that is not right."""

        def fetch(record: FileRecord) -> None:
            target = folder / safe_relative(record.path)
            etag = ""
            for _ in range(ATTEMPTS):
                if not has_size(target, record.bytes):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    etag = self._store.download(f"{self._name}/{record.path}", target)
                if has_size(target, record.bytes) and sha256_file(target) == record.sha256:
                    sync(target)
                    return self._note(record, etag)
                target.unlink()
            raise DamagedError(
                f"{self._store.url}/{self._name}/{record.path} is not what its manifest says: run the preparation again on "
                f"a machine that has {self._name}, or delete that folder and run again, which makes it anew."
            )

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(fetch, manifest.files))
        sync_folders(folder)

    def damage(self, manifest: Manifest) -> list[str]:
        """Which objects of the copy are not what the manifest says, in words. Reads only those with an unknown ETag."""
        return self._damaged(manifest.files)

    def _damaged(self, records: Sequence[FileRecord]) -> list[str]:
        """The same of some files; those that are right are known from then on."""
        listed, known = self._listed(), self._read()

        def check(record: FileRecord) -> str | None:
            name = f"{self._name}/{record.path}"
            blob = listed.get(record.path)
            if blob is None:
                return f"{self._store.url}/{name} is missing"
            if blob.size != record.bytes:
                return f"{self._store.url}/{name} has {blob.size:,} bytes instead of {record.bytes:,}"
            if not _holds(blob, record, known):
                if self._store.sha256(name) != record.sha256:
                    return f"{self._store.url}/{name} has another SHA-256 than its manifest says"
                self._note(record, blob.etag)
            return None

        with ThreadPoolExecutor(PARALLEL) as pool:
            return [problem for problem in pool.map(check, records) if problem]

    def discard(self) -> None:
        """Delete the manifest: what is left is no artifact, and the next upload writes over it."""
        self._store.delete(f"{self._name}/{MANIFEST}")

    def remove(self) -> None:
        """Delete the copy, its manifest first, so that no half of it is ever taken for whole."""
        self.discard()
        for blob in self._store.list(f"{self._name}/"):
            self._store.delete(blob.name)
        self._known.unlink(missing_ok=True)

    def _listed(self) -> dict[str, Blob]:
        """The objects of the copy, by path."""
        return {blob.name.removeprefix(f"{self._name}/"): blob for blob in self._store.list(f"{self._name}/")}

    def _read(self) -> dict[str, list[str]]:
        """{path: SHA-256 and ETag} of objects whose content is known."""
        found: dict[str, list[str]] = {}
        lines = self._known.read_text(errors="replace").splitlines() if self._known.is_file() else []
        for line in lines:
            with contextlib.suppress(ValueError):  # blank, or cut
                path, *facts = json.loads(line)
                found[path] = facts
        return found

    def _note(self, record: FileRecord, etag: str) -> None:
        if etag:
            self._known.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self._known.open("a") as file:
                # on a line of its own, even if the one before was cut
                file.write("\n" + json.dumps([record.path, record.sha256, etag.strip('"')]))


def _holds(blob: Blob | None, record: FileRecord, known: Mapping[str, list[str]]) -> bool:
    """Whether an object is known to hold the file."""
    if blob is None or not blob.etag or blob.size != record.bytes:
        return False
    return known.get(record.path) == [record.sha256, blob.etag.strip('"')]
