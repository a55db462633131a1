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
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.errors import DamagedError, DiskError, InputError, disk_fault
from tasks.store.access import local_path
from tasks.store.artifact import (
    MANIFEST,
    Artifact,
    Manifest,
    Sources,
    Work,
    contents,
    fingerprint,
    fingerprints,
    has_size,
    make_way,
    read_manifest,
    require_made_from,
    safe_relative,
    set_aside,
    sync,
    verify,
    write_atomic,
)
from tasks.store.locks import locked
from tasks.store.mirror import Mirror
from tasks.store.settings import load_settings
from tasks.store.shared import SharedFolder, url_of

DEFAULT_ROOT = ".fabrating/root"
log = logging.getLogger(__name__)


def root_url(url: str | Path = DEFAULT_ROOT) -> str:
    """The URL of a root, which is neither opened nor made. Raises InputError for what cannot be one."""
    return url_of(_named(url))


def root_if_made(url: str | Path = DEFAULT_ROOT, default: str = DEFAULT_ROOT) -> "Root | None":
    """The root for who looks up what is there and can do without: None for the default one, as a folder, as long as it has not been made.

    The default one in a store may be empty. Raises InputError when there is no other such root.
    """
    there = root_url(url)
    place, usual = local_path(there), there == root_url(default)
    return None if usual and place is not None and not place.is_dir() else Root(url, make=usual and place is None)


def _named(url: str | Path) -> str | Path:
    if str(url) != DEFAULT_ROOT:
        return url
    load_settings()
    return os.environ.get("FABRATING_ROOT") or DEFAULT_ROOT


class Root(SharedFolder):
    """Artifacts by name (`arms/top16-0a1b2c3d4e/text`), wherever the root URL points.

    The default `url` is what FABRATING_ROOT names, if that is set.
    """

    def __init__(self, url: str | Path = DEFAULT_ROOT, cache: Path | None = None, *, make: bool = True):
        super().__init__(_named(url), cache, make)

    @property
    def compiled(self) -> Path:
        """Where this machine keeps compiled kernels: a run begins with those of the runs of its shape before it."""
        return self.folder / ".compiled"

    def find(self, name: str) -> Manifest | None:
        """The manifest of a complete artifact here or in the remote store, or None."""
        manifest = read_manifest(self.path(name))
        return self._mirror(name).manifest() if manifest is None and self.remote is not None else manifest

    def manifest(self, name: str) -> Manifest:
        """The manifest of a complete artifact. Raises InputError when there is none."""
        manifest = self.find(name)
        if manifest is None:
            raise InputError(
                f"There is no complete artifact {name} under {self.url}: check the name, or prepare it first."
            )
        return manifest

    def intact(self, name: str) -> bool:
        """Whether the artifact is complete and every file has the checksum of its manifest, here and in a remote root.

        A damaged one on this machine is set aside (as `.<name>.damaged`, for whoever wants to see why), so that it is made or
        fetched anew. A damaged copy in the remote root is repaired from a whole one here, else it loses its manifest, so that
        it is made anew. Raises DamagedError when the manifest itself cannot be used, as one of another version.
        """
        directory = self.path(name)
        with locked(self._lock(name)):
            manifest = read_manifest(directory)
            if manifest is not None:
                try:
                    verify(directory, manifest)
                except DamagedError as error:
                    set_aside(directory, str(error))
                    manifest = None
            if self.remote is not None:
                self._repair(name, manifest)
        return self.find(name) is not None

    def _repair(self, name: str, whole: Manifest | None) -> None:
        """Compare the copy of an artifact in the remote root; `whole`: the manifest of a whole one on this machine."""
        mirror = self._mirror(name)
        there = mirror.manifest()
        damage = mirror.damage(there) if there is not None else []
        for problem in damage:
            log.warning("%s: %s.", problem, "it is sent again" if whole else f"{name} is made anew")
        if damage:
            mirror.discard()
        if whole is not None and (there is None or damage):
            mirror.upload(self.path(name), whole, self.check_lease)

    def names(self, prefix: str, file: str = MANIFEST) -> list[str]:
        """Names of the complete artifacts below `prefix`, or of the folders that hold another small `file`, sorted."""
        found = {p.parent.relative_to(self.folder).as_posix() for p in (self.folder / prefix).rglob(file)}
        if self.remote is not None:
            found |= {b.name.removesuffix(f"/{file}") for b in self.remote.list(prefix) if b.name.endswith(f"/{file}")}
        return sorted(name for name in found if not any(part.startswith(".") for part in Path(name).parts))

    def folders(self, kind: str) -> list[str]:
        """Names of the folders right below `kind`, whole or not, here or in the remote store, sorted."""
        found = {path.name for path in self.path(kind).glob("*") if path.is_dir()}
        if self.remote is not None:
            found |= {blob.name.split("/")[1] for blob in self.remote.list(f"{kind}/") if blob.name.count("/") > 1}
        return sorted(name for name in found if not name.startswith("."))

    def open(self, name: str, *, checksums: bool = False) -> Artifact:
        """A complete artifact on this machine, downloaded if need be.

        Sizes are always compared with the manifest, contents only with `checksums` (a download is always compared).
        Raises InputError when there is no such artifact, DamagedError when a file differs.
        """
        directory = self.path(name)
        manifest = read_manifest(directory)
        if manifest is None:
            listed = self.manifest(name)
            with locked(self._lock(name)):
                manifest = read_manifest(directory) or self._download(name, listed)
        verify(directory, manifest, checksums=checksums)
        return Artifact(name, directory, manifest, reused=True)

    def file(self, name: str, path: str) -> Path:
        """One file of a complete artifact on this machine: of a remote one that is not here, this file alone is fetched.

        Raises InputError when there is no such artifact or file, DamagedError when the one here has another size, or what was fetched differs.
        """
        manifest = self.find(name)
        record = next((r for r in manifest.files if r.path == path), None) if manifest is not None else None
        if manifest is None or record is None:
            raise InputError(f"There is no file {path} of a complete artifact {name} under {self.url}: check the name.")
        if self.remote is None or read_manifest(self.path(name)) is not None:
            verify(self.path(name), replace(manifest, files=(record,)), checksums=False)
            return self.path(name) / safe_relative(path)
        single = self.folder / ".files" / safe_relative(name) / manifest.fingerprint / safe_relative(path)
        if not has_size(single, record.bytes):
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
        content than its inputs hold now, DiskError when the disk is full or read-only; what was finished stays for the next attempt.
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
                try:
                    if read_manifest(self.path(name)) is None:
                        self._download(name, manifest)
                    return Artifact(name, self.path(name), manifest, reused=True)
                except DamagedError as error:
                    log.warning("%s It is made anew.", error)
                    self._mirror(name).discard()
            self._require_conditional()
            work = Work(self._partial(name, fingerprint(spec, fingerprints(inputs), contents(inputs))))
            with self._disk_faults_told(name):
                make(work)
                self.check_lease()
                artifact = work.publish(self.path(name), name, spec, inputs)
            return artifact if self.mirror(name) else self._adopt(artifact)

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

    def published(self, name: str) -> bool:
        """Whether the root itself, not this machine's cache of it, has the complete artifact."""
        return (self._mirror(name).manifest() if self.remote else read_manifest(self.path(name))) is not None

    def mirror(self, name: str) -> bool:
        """See that a remote root has the complete artifact of this machine, as it is here.

        Returns False when another host has published other content under that name; the holder of a lease replaces it, since
        its number is higher.
        """
        manifest = read_manifest(self.path(name))
        if self.remote is None or manifest is None:
            return True
        replace = self._lease is not None
        return self._mirror(name).upload(self.path(name), manifest, self.check_lease, replace) is not None

    def remove(self, name: str) -> None:
        """Delete an artifact here and in a remote root: the manifest first, so that no half of it is ever taken for whole."""
        self.check_lease()
        directory = self.path(name)
        (directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        if self.remote is not None:
            self._mirror(name).remove()

    def remove_folder(self, name: str) -> None:
        """Delete all artifacts below a folder, each as `remove` does, then what else lies in it, here and in a remote root.

        An artifact that is being made on this machine is waited for.
        """
        for artifact in self.names(f"{name}/"):
            with locked(self._lock(artifact)):
                self.remove(artifact)
        for blob in self.remote.list(f"{name}/") if self.remote is not None else ():
            self._blobs().delete(blob.name)
        for left in (self.path(name), self.folder / ".files" / safe_relative(name)):
            shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def _disk_faults_told(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if (fault := disk_fault(error)) is None:
                raise
            what, remedy = fault
            raise DiskError(
                f"{what} below {self.folder} to make {name}: {remedy} there and run again, which goes on with what is complete."
            ) from error

    def _partial(self, name: str, recipe: str) -> Path:
        final = self.path(name)
        partial = final.with_name(f".{final.name}.{recipe}.partial")
        for stale in final.parent.glob(f".{final.name}.*.partial"):
            if stale != partial:
                shutil.rmtree(stale)
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def _mirror(self, name: str) -> Mirror:
        assert self.remote is not None, "only a remote root has copies"
        return Mirror(self.remote, name, self.folder / ".verified" / f"{safe_relative(name)}.jsonl")

    def _adopt(self, made: Artifact) -> Artifact:
        """What another host published under the name of an artifact that was made here meanwhile, instead of this one."""
        log.warning(
            "%s/%s was published by another host meanwhile, with other content: that one counts.", self.url, made.name
        )
        set_aside(made.path, f"{made.name} is another one than in {self.url}")
        manifest = self.manifest(made.name)
        self._download(made.name, manifest)
        return Artifact(made.name, made.path, manifest)

    def _download(self, name: str, manifest: Manifest) -> Manifest:
        """Fetch every file into a work directory, verify, rename. Keeps the complete files of an earlier attempt."""
        partial = self._partial(name, "download")
        self._mirror(name).download(manifest, partial)
        write_atomic(partial / MANIFEST, manifest.to_json())
        make_way(self.path(name))
        partial.rename(self.path(name))
        sync(self.path(name).parent)
        return manifest
