"""nanochat's own checkpoints of a run: which are complete, mirroring them, dropping old ones.

The overlay writes a checkpoint's metadata last, with the number of ranks and the size of every other file: a checkpoint is
complete when its metadata is there and the files have those sizes. The ones that count lie in
`runs/<run>/nanochat/base_checkpoints/<run>/`, here and below a remote root.
"""

import contextlib
import json
import logging
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tasks.engines.builtin.checkpoint import stale
from tasks.engines.nanochat import contract
from tasks.errors import InputError
from tasks.records.layout import JOB, METRICS, RunFolder
from tasks.store.artifact import has_size, safe_relative
from tasks.store.root import Root

log = logging.getLogger(__name__)
MARKER = "fabrating"
_META = re.compile(r"meta_(\d{6,})\.json$")


def base_name(run: str) -> str:
    """nanochat's base directory for a run, below the root."""
    return RunFolder(run).file("nanochat")


def folder_of(root: Root, run: str) -> Path:
    """Where the checkpoints of a run lie on this machine."""
    return contract.checkpoint_folder(root.path(base_name(run)), run)


def files_of(folder: Path, step: int) -> dict[str, int] | None:
    """Names and sizes of the files of a checkpoint beside its metadata; None when it has no usable metadata."""
    try:
        files = json.loads((folder / contract.meta_file(step)).read_bytes())[MARKER]["files"]
        return {str(safe_relative(name)): int(size) for name, size in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def ranks_of(folder: Path, step: int) -> int:
    """How many ranks wrote a complete checkpoint."""
    return json.loads((folder / contract.meta_file(step)).read_bytes())[MARKER]["ranks"]


def whole_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending; others are named in a warning."""
    steps = []
    for path in sorted(folder.glob("meta_*.json")):
        step = int(match[1]) if (match := _META.match(path.name)) else -1
        files = files_of(folder, step)
        bad = [name for name, size in (files or {}).items() if not has_size(folder / name, size)]
        if files and not bad:
            steps.append(step)
        else:
            log.warning("Skipping the checkpoint %s, which is incomplete: %s.", path, ", ".join(bad) or "metadata")
    return sorted(steps)


def resume_step(root: Root, run: str, ranks: int) -> int:
    """The newest complete checkpoint's step, fetched from a remote root if there is none here; 0 when there is none at all.

    Raises InputError when it was written by another number of ranks: nanochat's optimizer files are per rank.
    """
    folder = folder_of(root, run)
    if not whole_steps(folder):
        _fetch(root, run)
    steps = whole_steps(folder)
    if not steps:
        return 0
    if (wrote := ranks_of(folder, steps[-1])) != ranks:
        raise InputError(
            f"gpus is {ranks}, but the nanochat run {run} was started on {wrote} and its optimizer's files are per GPU: set "
            f"gpus to {wrote}, or remove {folder} to start over."
        )
    return steps[-1]


def _fetch(root: Root, run: str) -> None:
    """Download the newest checkpoint below a remote root: its metadata names the files and comes into view last."""
    if root.remote is None:
        return
    folder = folder_of(root, run)
    prefix = folder.relative_to(root.folder).as_posix()
    names = [blob.name.rsplit("/", 1)[-1] for blob in root.remote.list(prefix)]
    steps = [int(match[1]) for name in names if (match := _META.match(name))]
    if not steps:
        return
    folder.mkdir(parents=True, exist_ok=True)
    step = max(steps)
    name = contract.meta_file(step)
    hidden = folder / f".{name}"
    root.remote.download(f"{prefix}/{name}", hidden)
    files = json.loads(hidden.read_bytes())[MARKER]["files"]
    for part in files:
        root.remote.download(f"{prefix}/{safe_relative(part)}", folder / part)
    hidden.rename(folder / name)
    log.info("The checkpoint of step %d of %s was fetched from %s.", step, run, root.url)


class Keeper:
    """Mirrors new checkpoints (and the metrics) on a thread of its own and drops old ones. Faults of the store are warnings."""

    def __init__(self, root: Root, run: str, keep_last: int, keep_every: int | None):
        self._root, self._run, self._last, self._every = root, run, keep_last, keep_every
        self._thread = ThreadPoolExecutor(1, "mirror")
        self._pending: Future[None] | None = None

    def saved(self, step: int) -> None:
        """A checkpoint is complete: mirror it, then drop old ones."""
        self._pending = self._thread.submit(self._keep, step)

    def close(self, seconds: float | None = None) -> None:
        """Wait until the newest is mirrored, at most `seconds`."""
        if self._pending is not None:
            with contextlib.suppress(TimeoutError):
                self._pending.result(seconds)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _keep(self, step: int) -> None:
        folder = folder_of(self._root, self._run)
        try:
            beside = [self._root.path(RunFolder(self._run).file(name)) for name in (METRICS, JOB)]
            for path in filter(Path.is_file, beside):
                self._root.upload_file(path)
            for name in [*(files_of(folder, step) or {}), contract.meta_file(step)]:
                self._root.upload_file(folder / name)
        except Exception as error:  # a store that is away must not stop training: the next checkpoint tries again
            log.warning("Step %d of %s was not mirrored to %s (%s).", step, self._run, self._root.url, error)
            return
        for old in stale(whole_steps(folder), self._last, self._every):
            names = [
                contract.meta_file(old),
                *(files_of(folder, old) or {}),
            ]  # metadata first: from then on it is incomplete
            for name in names:
                self._drop(folder / name)

    def _drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._root.delete_file(path)
