"""Artifacts: directories that are whole or not there.

While it is made, an artifact is a *work directory* beside its final place (`.name.partial`). Each finished file in it has
a record (bytes, rows, SHA-256), so that an interrupted run goes on at the first file that has none. At the end the
manifest is written and the directory renamed: one atomic step. No manifest, no artifact.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.errors import DamagedError, InputError

FORMAT = 1
MANIFEST = "manifest.json"
RECORDS = ".records"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileRecord:
    """One finished file: `path` relative to its artifact, with forward slashes."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What an artifact is (`spec`, `inputs`), what it was made from, what lies in it (`files`), what was counted (`facts`)."""

    name: str
    fingerprint: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    """{role: fingerprint of an artifact, or another name of what was read}."""
    facts: Mapping[str, Any]
    files: tuple[FileRecord, ...]
    code: str
    created: str
    format: int = FORMAT
    made_from: Mapping[str, str] | None = None
    """{name of an artifact that was read: its content}. None in artifacts from before contents were recorded."""

    @property
    def content(self) -> str:
        """SHA-256 over the files' paths, bytes and checksums: what lies in the artifact, whoever made it and when."""
        files = sorted((record.path, record.bytes, record.sha256) for record in self.files)
        return hashlib.sha256(json.dumps(files, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, origin: str) -> "Manifest":
        """Parse a manifest read from `origin`. Raises DamagedError when it is no manifest of this format."""
        try:
            raw = json.loads(text)
            if raw.get("format") != FORMAT:
                raise DamagedError(
                    f"{origin} has manifest format {raw.get('format')!r}, this version of FabRating reads {FORMAT}: "
                    f"rebuild it, or use the version that wrote it ({raw.get('code', 'unknown')})."
                )
            raw["files"] = tuple(FileRecord(**record) for record in raw["files"])
            manifest = cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"{origin} is not a manifest ({error}): delete that directory and run again.") from error
        for record in manifest.files:
            safe_relative(record.path)
        return manifest


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on this machine."""

    name: str
    path: Path
    manifest: Manifest
    reused: bool = False

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.manifest.facts


Sources = Mapping[str, str | Manifest]
"""What an artifact is made from: {role: manifest of an artifact, or the name of something else}."""


def fingerprints(inputs: Sources) -> dict[str, str]:
    """As `Manifest.inputs` keeps them: they are part of an artifact's identity."""
    return {role: part if isinstance(part, str) else part.fingerprint for role, part in inputs.items()}


def contents(inputs: Sources) -> dict[str, str]:
    """As `Manifest.made_from` keeps them: {name of an artifact: its content}."""
    return {part.name: part.content for part in inputs.values() if not isinstance(part, str)}


def fingerprint(*parts: Any) -> str:
    """Ten hexadecimal digits that stand for JSON-ready values: equal values, equal fingerprint, on every machine."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def code_version() -> str:
    """The installed version, for manifests: it says what wrote an artifact, it does not decide its identity."""
    try:
        return version("fabrating")
    except PackageNotFoundError:
        return "unknown"


def safe_relative(name: str) -> PurePosixPath:
    """A file name from outside as a path that cannot leave its directory. Raises InputError otherwise."""
    path = PurePosixPath(name)
    hostile = (
        path.is_absolute() or ".." in path.parts or "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name)
    )
    if hostile or not path.parts:
        raise InputError(f"The file name {name!r} is not a plain relative path: rename it in the store.")
    return path


def has_size(path: Path, size: int) -> bool:
    """Whether there is a file of so many bytes."""
    return path.is_file() and path.stat().st_size == size


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read once; hashing releases the interpreter lock."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or directory to the disk, so that a rename never shows up before the bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folders(path: Path) -> None:
    """Flush a directory and those below it, so that the files that were written there are found after a power cut."""
    for folder in (path, *(found for found in path.rglob("*") if found.is_dir())):
        sync(folder)


def make_way(directory: Path) -> None:
    """Set aside what stands where an artifact is to be published: the folder of a removal that was cut off, say."""
    if directory.exists() or directory.is_symlink():
        set_aside(directory, f"{directory} has no manifest")


def set_aside(directory: Path, why: str) -> None:
    """Hide a folder as `.<name>.damaged`, so that nobody mistakes it for a complete artifact and it can be made again."""
    hidden = directory.with_name(f".{directory.name}.damaged")
    shutil.rmtree(hidden, ignore_errors=True)
    directory.rename(hidden)
    log.warning("%s: it is set aside as %s.", why.rstrip("."), hidden)


def write_atomic(path: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Write a small file whole or not at all: temporary sibling, sync, rename. `mode` is subject to the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


@dataclass
class Work:
    """The work directory of an artifact that is being made: it outlives a killed process."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def temporary(self, name: str) -> Path:
        """Where to write the file `name` before `finish` makes it count."""
        target = self.path / safe_relative(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.writing")

    def finish(self, name: str, rows: int | None = None, sha256: str | None = None) -> FileRecord:
        """Make the file written at `temporary(name)` count: synced, renamed, recorded.

        Pass `sha256` when it was computed while writing; otherwise the file is read once more.
        """
        temporary, target = self.temporary(name), self.path / safe_relative(name)
        sync(temporary)
        record = FileRecord(name, temporary.stat().st_size, sha256 or sha256_file(temporary), rows)
        temporary.replace(target)
        write_atomic(self._record_path(name), json.dumps(asdict(record)))
        return record

    def done(self, name: str) -> FileRecord | None:
        """The record of a file that an earlier attempt (or this one) finished, or None."""
        try:
            record = FileRecord(**json.loads(self._record_path(name).read_bytes()))
            return record if (self.path / name).stat().st_size == record.bytes else None
        except (OSError, ValueError, TypeError):
            return None

    def _record_path(self, name: str) -> Path:
        return self.path / RECORDS / f"{safe_relative(name)}.json"

    def _files(self) -> Iterator[str]:
        for path in sorted(self.path.rglob("*")):
            relative = path.relative_to(self.path)
            hidden = any(part.startswith(".") for part in relative.parts)
            if path.is_file() and not hidden and relative.as_posix() != MANIFEST:
                yield relative.as_posix()

    def publish(self, final: Path, name: str, spec: Mapping[str, Any], inputs: Sources) -> Artifact:
        """Write the manifest over every visible file and rename the directory to `final`.

        Hidden files (names starting with a dot) are intermediates: they are deleted. The records go last: an attempt that
        ends before the manifest is there costs no finished file.
        """
        with ThreadPoolExecutor(4) as pool:
            records = tuple(pool.map(self._record, self._files()))
        manifest = Manifest(
            name=name,
            fingerprint=fingerprint(name.rsplit("/", 1)[-1], spec, fingerprints(inputs)),
            spec=spec,
            inputs=fingerprints(inputs),
            made_from=contents(inputs),
            facts=self.facts,
            files=records,
            code=code_version(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_atomic(self.path / MANIFEST, manifest.to_json())
        for leftover in [p for p in self.path.rglob(".*") if p.relative_to(self.path).parts[0] != RECORDS]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        sync_folders(self.path)
        make_way(final)
        self.path.rename(final)
        sync(final.parent)
        shutil.rmtree(final / RECORDS, ignore_errors=True)
        return Artifact(name, final, manifest)

    def _record(self, name: str) -> FileRecord:
        if (record := self.done(name)) is not None:
            return record
        path = self.path / name
        sync(path)
        return FileRecord(name, path.stat().st_size, sha256_file(path))


def require_made_from(made: Manifest, source: str, content: str | None) -> None:
    """Raises InputError unless `made` was made from the artifact `source` while that held `content` (None: unknown)."""
    recorded = (made.made_from or {}).get(source)
    if recorded is None:
        raise InputError(f"{made.name} does not record the {source} that it was made from: {_make_again(made)}.")
    if recorded != content:
        raise InputError(
            f"{made.name} was made from another {source} (content {recorded[:10]}) than there is now (content "
            f"{(content or 'unknown')[:10]}): {_make_again(made)}."
        )


def _make_again(made: Manifest) -> str:
    return f"delete the folder {made.name} and run again, which makes it from what is there now"


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a complete artifact, or None. Raises DamagedError when there is one that cannot be used."""
    path = directory / MANIFEST
    return Manifest.from_json(path.read_bytes(), str(path)) if path.is_file() else None


def verify(directory: Path, manifest: Manifest, *, checksums: bool = True) -> None:
    """Compare every file with its record. Raises DamagedError naming the first file that differs."""

    def check(record: FileRecord) -> str | None:
        path = directory / record.path
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != record.bytes:
            return f"{path} has {path.stat().st_size:,} bytes instead of {record.bytes:,}"
        if checksums and sha256_file(path) != record.sha256:
            return f"{path} has another SHA-256 than its manifest says"
        return None

    with ThreadPoolExecutor(4) as pool:
        for problem in pool.map(check, manifest.files):
            if problem:
                raise DamagedError(f"{problem}: delete {directory} and run again to rebuild it.")
