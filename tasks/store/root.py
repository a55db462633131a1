"""The root: one URL under which all artifacts lie.

    pools/<pool>/index, holdout, tokenizer, evaluation
    arms/<arm>/text, packed/<sequence length>-<packing>
    runs/<run>/
    verdicts/<name>/

Each leaf is an artifact with its own manifest, so that each is found, skipped, resumed and verified by itself. With a
`file://` root artifacts are made in place. With any other root they pass through a local folder: made there, uploaded
file by file with the manifest last, downloaded and verified on another machine.
"""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.errors import DamagedError, FullDiskError, InputError
from tasks.store.access import local_path, open_blobs
from tasks.store.artifact import (
    MANIFEST,
    Artifact,
    Manifest,
    Sources,
    Work,
    contents,
    fingerprint,
    fingerprints,
    read_manifest,
    require_made_from,
    safe_relative,
    verify,
)
from tasks.store.blobs import Blobs
from tasks.store.locks import locked

DEFAULT_ROOT = ".fabrating/root"
log = logging.getLogger(__name__)


class Root:
    """Artifacts by name (`arms/top16-0a1b2c3d4e/text`), wherever the root URL points.

    `url` is a folder, `file:///folder` or `az://container/prefix`; the default one is what FABRATING_ROOT names, if that is
    set. `cache` is the local folder for a remote root (default: FABRATING_CACHE, else `.fabrating/cache`).
    """

    def __init__(self, url: str | Path = DEFAULT_ROOT, cache: Path | None = None):
        if str(url) == DEFAULT_ROOT:
            url = os.environ.get("FABRATING_ROOT") or DEFAULT_ROOT
        local = local_path(str(url))
        self.remote: Blobs | None = None
        if local is not None:
            self.folder = local.absolute()
            self.url = self.folder.as_uri()
        else:
            self.url = str(url).rstrip("/")
            base = cache or Path(os.environ.get("FABRATING_CACHE", ".fabrating/cache"))
            self.folder = base.absolute() / fingerprint(self.url)
            self.remote = open_blobs(self.url)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The root {url} cannot be used ({error}): give a folder that you can write to."
            ) from error

    def path(self, name: str) -> Path:
        """The local directory of an artifact, complete or not."""
        return self.folder / safe_relative(name)

    def find(self, name: str) -> Manifest | None:
        """The manifest of a complete artifact here or in the remote store, or None."""
        manifest = read_manifest(self.path(name))
        if manifest is None and self.remote is not None:
            raw = self.remote.read_if_exists(f"{name}/{MANIFEST}")
            manifest = Manifest.from_json(raw, f"{self.url}/{name}/{MANIFEST}") if raw is not None else None
        return manifest

    def manifest(self, name: str) -> Manifest:
        """The manifest of a complete artifact. Raises InputError when there is none."""
        manifest = self.find(name)
        if manifest is None:
            raise InputError(
                f"There is no complete artifact {name} under {self.url}: check the name, or prepare it first."
            )
        return manifest

    def intact(self, name: str) -> bool:
        """Whether the artifact is complete and every file on this machine has the checksum of its manifest.

        A damaged one is set aside (as `.<name>.damaged`, for whoever wants to see why), so that it is made or fetched anew.
        Raises DamagedError when the manifest itself cannot be used, as one of another version.
        """
        directory = self.path(name)
        with locked(self._lock(name)):
            manifest = read_manifest(directory)
            if manifest is not None:
                try:
                    verify(directory, manifest)
                except DamagedError as error:
                    aside = directory.with_name(f".{directory.name}.damaged")
                    shutil.rmtree(aside, ignore_errors=True)
                    directory.rename(aside)
                    log.warning("%s It is set aside as %s.", error, aside)
        return self.find(name) is not None

    def names(self, prefix: str) -> list[str]:
        """Names of the complete artifacts below `prefix`, sorted."""
        found = {p.parent.relative_to(self.folder).as_posix() for p in (self.folder / prefix).rglob(MANIFEST)}
        if self.remote is not None:
            found |= {
                b.name.removesuffix(f"/{MANIFEST}") for b in self.remote.list(prefix) if b.name.endswith(f"/{MANIFEST}")
            }
        return sorted(name for name in found if not any(part.startswith(".") for part in Path(name).parts))

    def open(self, name: str, *, checksums: bool = False) -> Artifact:
        """A complete artifact on this machine, downloaded if need be.

        Sizes are always compared with the manifest, contents only with `checksums` (a download is always compared).
        Raises InputError when there is no such artifact, DamagedError when a file differs.
        """
        directory = self.path(name)
        manifest = read_manifest(directory)
        if manifest is None and (listed := self.find(name)) is not None:
            with locked(self._lock(name)):
                manifest = read_manifest(directory) or self._download(name, listed)
        if manifest is None:
            raise InputError(
                f"There is no complete artifact {name} under {self.url}: check the name, or prepare it first."
            )
        verify(directory, manifest, checksums=checksums)
        return Artifact(name, directory, manifest, reused=True)

    def file(self, name: str, path: str) -> Path:
        """One file of a complete artifact on this machine: of a remote one that is not here, this file alone is fetched.

        Raises InputError when there is no such artifact or file, DamagedError when what was fetched differs.
        """
        manifest = self.find(name)
        record = next((r for r in manifest.files if r.path == path), None) if manifest is not None else None
        if manifest is None or record is None:
            raise InputError(f"There is no file {path} of a complete artifact {name} under {self.url}: check the name.")
        if self.remote is None or read_manifest(self.path(name)) is not None:
            return self.path(name) / safe_relative(path)
        single = self.folder / ".files" / safe_relative(name) / manifest.fingerprint / safe_relative(path)
        if not _matches(single, record.bytes):
            single.parent.mkdir(parents=True, exist_ok=True)
            self.remote.download(f"{name}/{path}", single)
            try:
                verify(single.parents[len(safe_relative(path).parts) - 1], replace(manifest, files=(record,)))
            except DamagedError:
                single.unlink()
                raise
        return single

    def build(
        self,
        name: str,
        make: Callable[[Work], None],
        *,
        spec: Mapping[str, Any],
        inputs: Sources | None = None,
    ) -> Artifact:
        """The artifact `name`: as it is when complete, otherwise made by `make(work)` and published.

        `make` writes files through `work.temporary` and `work.finish`, skips those for which `work.done` has a record, and
        puts what it counted into `work.facts`. A work directory whose spec or inputs were different is started anew.

        Raises DamagedError when a complete one has another spec or other inputs, InputError when it was made from other
        content than its inputs hold now, FullDiskError when no space is left; what was finished stays for the next attempt.
        """
        inputs = dict(inputs or {})
        with locked(self._lock(name)):
            manifest = self.find(name)
            if manifest is not None:
                wanted = fingerprint(name.rsplit("/", 1)[-1], spec, fingerprints(inputs))
                if manifest.fingerprint != wanted:
                    raise DamagedError(
                        f"{self.url}/{name} was made from other inputs (fingerprint {manifest.fingerprint}, expected "
                        f"{wanted}): delete it and run again."
                    )
                for source, content in contents(inputs).items():
                    require_made_from(manifest, source, content)
                if read_manifest(self.path(name)) is None:
                    self._download(name, manifest)
                return Artifact(name, self.path(name), manifest, reused=True)
            work = Work(self._partial(name, fingerprint(spec, fingerprints(inputs), contents(inputs))))
            with self._told_when_full(name):
                make(work)
                artifact = work.publish(self.path(name), name, spec, inputs)
            self._upload(artifact)
            return artifact

    def require_current(self, manifests: Iterable[Manifest]) -> None:
        """Compare what artifacts were made from with what lies there now; what is not there, or not recorded, is no fault.

        Raises InputError naming the first artifact that was made from other content.
        """
        now: dict[str, Manifest | None] = {}
        for made in manifests:
            for source in made.made_from or ():
                if source not in now:
                    now[source] = self.find(source)
                if (found := now[source]) is not None:
                    require_made_from(made, source, found.content)

    def upload_file(self, path: Path) -> None:
        """Mirror one file that lies below the root's folder to a remote root; nothing to do for a local one."""
        if self.remote is not None:
            self.remote.upload(path, path.relative_to(self.folder).as_posix())

    def remove(self, name: str) -> None:
        """Delete an artifact here and in a remote root: the manifest first, so that no half of it is ever taken for whole."""
        directory = self.path(name)
        (directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        if self.remote is not None:
            self.remote.delete(f"{name}/{MANIFEST}")
            for blob in self.remote.list(f"{name}/"):
                self.remote.delete(blob.name)

    def _lock(self, name: str) -> Path:
        return self.folder / ".locks" / f"{name.replace('/', '.')}.lock"

    @contextlib.contextmanager
    def _told_when_full(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise FullDiskError(
                f"No space is left below {self.folder} to make {name}: free some there and run again, which goes on with "
                "what is complete."
            ) from error

    def _partial(self, name: str, recipe: str) -> Path:
        final = self.path(name)
        partial = final.with_name(f".{final.name}.{recipe}.partial")
        for stale in final.parent.glob(f".{final.name}.*.partial"):
            if stale != partial:
                shutil.rmtree(stale)
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def _upload(self, artifact: Artifact) -> None:
        remote = self.remote
        if remote is None:
            return
        names = [record.path for record in artifact.manifest.files]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: remote.upload(artifact.path / n, f"{artifact.name}/{n}"), names))
        remote.upload(artifact.path / MANIFEST, f"{artifact.name}/{MANIFEST}")

    def _download(self, name: str, manifest: Manifest) -> Manifest:
        """Fetch every file into a work directory, verify, rename. Keeps the complete files of an earlier attempt."""
        assert self.remote is not None, "only a remote root has a manifest without a folder here"
        remote, partial = self.remote, self._partial(name, "download")

        def fetch(path: str) -> None:
            target = partial / safe_relative(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.download(f"{name}/{path}", target)

        missing = [r.path for r in manifest.files if not _matches(partial / r.path, r.bytes)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, missing))
        verify(partial, manifest)
        (partial / MANIFEST).write_text(manifest.to_json())
        partial.rename(self.path(name))
        return manifest


def _matches(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
