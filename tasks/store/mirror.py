"""An artifact's copy in a remote store: written with its manifest last, fetched, compared with its checksums.

ETags of objects whose content is known to be right are kept in a small file on this machine: an object that still has its
ETag is not read again.
"""

import contextlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.errors import DamagedError
from tasks.store.artifact import (
    MANIFEST,
    FileRecord,
    Manifest,
    safe_relative,
    sha256_file,
    sync,
    sync_folders,
    write_atomic,
)
from tasks.store.blobs import Blobs

PARALLEL = 8
ATTEMPTS = 2
"""How often a file that arrives wrong is fetched before its object counts as damaged."""


class Mirror:
    """The copy of the artifact `name` in `store`. `known`: the file of ETags."""

    def __init__(self, store: Blobs, name: str, known: Path):
        self._store, self._name, self._known = store, name, known

    def manifest(self) -> Manifest | None:
        """The manifest of the copy, or None. Raises DamagedError when it cannot be used."""
        raw = self._store.read_if_exists(f"{self._name}/{MANIFEST}")
        return Manifest.from_json(raw, f"{self._store.url}/{self._name}/{MANIFEST}") if raw is not None else None

    def upload(self, folder: Path, manifest: Manifest, permit: Callable[[], None], replace: bool = False) -> bool:
        """Copy the artifact in `folder`. `permit` is called before each object and raises when nothing may be published.

        Returns False when a copy with other content is there or comes first, which stays unless `replace`.
        """
        permit()
        there = self.manifest()
        if there is not None:
            if there.content == manifest.content:
                return True
            if not replace:
                return False
            self.discard()

        def put(record: FileRecord) -> tuple[str, str]:
            permit()
            return record.path, self._store.upload(folder / record.path, f"{self._name}/{record.path}")

        with ThreadPoolExecutor(PARALLEL) as pool:
            etags = dict(pool.map(put, manifest.files))
        permit()
        if not self._store.create(f"{self._name}/{MANIFEST}", (folder / MANIFEST).read_bytes()):
            there = self.manifest()
            if there is None or there.content != manifest.content:
                return False
        self._note(etags)
        return True

    def download(self, manifest: Manifest, folder: Path) -> None:
        """Fetch the files that `folder` lacks, compare and sync them. Raises DamagedError naming an object that is not right."""

        def fetch(record: FileRecord) -> tuple[str, str] | None:
            target = folder / safe_relative(record.path)
            etag = ""
            for _ in range(ATTEMPTS):
                if not (target.is_file() and target.stat().st_size == record.bytes):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    etag = self._store.download(f"{self._name}/{record.path}", target)
                if target.stat().st_size == record.bytes and sha256_file(target) == record.sha256:
                    sync(target)
                    return (record.path, etag) if etag else None
                target.unlink()
            raise DamagedError(
                f"{self._store.url}/{self._name}/{record.path} is not what its manifest says: run the preparation again on "
                f"a machine that has {self._name}, or delete that folder and run again, which makes it anew."
            )

        with ThreadPoolExecutor(PARALLEL) as pool:
            fetched = [one for one in pool.map(fetch, manifest.files) if one]
        sync_folders(folder)
        self._note(dict(fetched))

    def damage(self, manifest: Manifest) -> list[str]:
        """Which objects of the copy are not what the manifest says, in words. Reads only those with an unknown ETag."""
        listed = {blob.name: blob for blob in self._store.list(f"{self._name}/")}
        known, right = self._read(), {}

        def check(record: FileRecord) -> str | None:
            name = f"{self._name}/{record.path}"
            blob = listed.get(name)
            if blob is None:
                return f"{self._store.url}/{name} is missing"
            if blob.size != record.bytes:
                return f"{self._store.url}/{name} has {blob.size:,} bytes instead of {record.bytes:,}"
            if not blob.etag or known.get(record.path) != blob.etag:
                if self._store.sha256(name) != record.sha256:
                    return f"{self._store.url}/{name} has another SHA-256 than its manifest says"
                right[record.path] = blob.etag
            return None

        with ThreadPoolExecutor(PARALLEL) as pool:
            problems = [problem for problem in pool.map(check, manifest.files) if problem]
        self._note(right)
        return problems

    def discard(self) -> None:
        """Delete the manifest: what is left is no artifact, and the next upload writes over it."""
        self._store.delete(f"{self._name}/{MANIFEST}")

    def remove(self) -> None:
        """Delete the copy, its manifest first, so that no half of it is ever taken for whole."""
        self.discard()
        for blob in self._store.list(f"{self._name}/"):
            self._store.delete(blob.name)
        self._known.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._known.read_bytes()))
        return {}

    def _note(self, etags: dict[str, str]) -> None:
        if etags:
            write_atomic(self._known, json.dumps(self._read() | etags))
