"""Artifacts between a folder and the blob store, without a detour: `python -m tasks.hosts.bulk fetch|send URL NAME ROOT`.

It runs here or on a provisioned host, next to the folder. azcopy fetches where it can, the object store's client otherwise.
Files are compared with the manifest's SHA-256 after fetching and before sending; the manifest travels last.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.errors import DamagedError, InputError
from tasks.hosts.folders import replace
from tasks.hosts.machine import WRONG_INPUT, Local
from tasks.progress import Progress, silent
from tasks.store.access import open_blobs
from tasks.store.artifact import (
    MANIFEST,
    FileRecord,
    Manifest,
    fingerprint,
    has_size,
    read_manifest,
    safe_relative,
    sha256_file,
    verify,
)
from tasks.store.blobs import Blob
from tasks.store.bulk import ETAGS, copy_blobs, why_not
from tasks.store.mirror import Mirror

KNOWN = ".sent"
"""Ending of the file of what objects hold, while an artifact travels."""
HERE = Local()


def fetch(url: str, name: str, root: Path, progress: Progress = silent) -> dict[str, int | str]:
    """Bring an artifact from the store at `url` below the folder `root`; what is there and right is kept.

    Returns bytes, bytes that were missing, and the way. Raises InputError when there is no such artifact or the disk is too
    small, DamagedError when the store's files differ from their manifest.
    """
    store = open_blobs(url)
    raw = store.read_if_exists(f"{safe_relative(name)}/{MANIFEST}")
    if raw is None:
        raise InputError(f"There is no complete artifact {name} at {url}: check the name.")
    manifest = Manifest.from_json(raw, f"{url}/{name}/{MANIFEST}")
    final = (root / name).resolve()
    total = sum(record.bytes for record in manifest.files)
    if final.is_dir() and read_manifest(final) == manifest:
        return {"bytes": total, "sent": 0, "way": "already there"}
    incoming = final.with_name(f".{final.name}.incoming")
    incoming.mkdir(parents=True, exist_ok=True)
    missing = _missing(incoming, manifest.files)
    sent = sum(record.bytes for record in missing)
    if sent > shutil.disk_usage(incoming).free:
        raise InputError(
            f"{incoming} needs {sent / 1e9:.1f} GB more than its disk has free: make room, or give another root."
        )
    progress(f"fetch {name}", total - sent, total, {})
    bulk = why_not(url) is None
    if bulk and missing:
        listed = {blob.name: blob for blob in open_blobs(f"{url.rstrip('/')}/{name}").list()}
        copy_blobs(f"{url.rstrip('/')}/{name}", [_listed(listed, record, url) for record in missing], incoming)
    Mirror(store, name, incoming / KNOWN).download(manifest, incoming)
    progress(f"fetch {name}", total, total, {})
    for beside in (ETAGS, KNOWN):
        (incoming / beside).unlink(missing_ok=True)
    (incoming / MANIFEST).write_bytes(raw)
    replace(HERE, str(incoming), str(final), manifest.files)
    return {"bytes": total, "sent": sent, "way": "azcopy" if bulk else "object store client"}


def send(url: str, name: str, root: Path, progress: Progress = silent) -> dict[str, int | str]:
    """Bring an artifact from the folder `root` to the store at `url`; what is there with the same content is kept.

    A manifest of other content is deleted there before the first file: what is half replaced is no artifact.

    Raises InputError when there is no such artifact, DamagedError when a file differs from the manifest.
    """
    folder = root / safe_relative(name)
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        raise InputError(f"There is no complete artifact {name} in {root}: check the name.")
    verify(folder, manifest)
    total = sum(record.bytes for record in manifest.files)
    known = folder.with_name(f".{folder.name}.{fingerprint(url)}{KNOWN}")
    mirror = Mirror(open_blobs(url), name, known)
    try:
        there = mirror.manifest()
    except DamagedError:
        mirror.discard()
        there = None
    if there is not None and there.content == manifest.content:
        return {"bytes": total, "sent": 0, "way": "already there"}
    progress(f"send {name}", 0, total, {})
    sent = mirror.upload(folder, manifest, lambda: None, replace=True)
    if sent is None:
        raise ConnectionError(f"{url}/{name} was written by another host meanwhile: run again.")
    known.unlink(missing_ok=True)
    progress(f"send {name}", total, total, {})
    return {"bytes": total, "sent": sent, "way": "object store client"}


def _missing(folder: Path, files: Sequence[FileRecord]) -> list[FileRecord]:
    """Files that are not there with the right contents; wrong ones are deleted."""

    def wrong(record: FileRecord) -> bool:
        path = folder / record.path
        if has_size(path, record.bytes) and sha256_file(path) == record.sha256:
            return False
        path.unlink(missing_ok=True)
        return True

    with ThreadPoolExecutor(4) as pool:
        return [record for record, bad in zip(files, pool.map(wrong, files), strict=True) if bad]


def _listed(blobs: dict[str, Blob], record: FileRecord, url: str) -> Blob:
    if record.path not in blobs:
        raise DamagedError(f"{url} lacks {record.path}, which its manifest names: prepare the artifact again.")
    return blobs[record.path]


def main(arguments: list[str]) -> int:
    """The command line: prints the result as JSON, or one sentence and status 66 when a person must change something."""
    action, url, name, root = arguments
    try:
        print(json.dumps({"fetch": fetch, "send": send}[action](url, name, Path(root))))
    except (InputError, DamagedError) as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
