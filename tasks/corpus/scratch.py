"""Intermediate files of an artifact in the making: written whole or not at all, and found again after a kill.

They lie in a hidden folder on the local disk or, when several machines share the work, below the artifact root. Local files
are not synced, which would cost disk bandwidth for files that are read once and deleted. They survive a killed process but
not a power cut, so files from before the last boot are discarded.
"""

import mmap
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.corpus.disk import write_all
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob, Blobs
from tasks.store.machine import boot
from tasks.store.root import Root


@dataclass(frozen=True)
class Scratch:
    """A folder (`url` None) or a prefix of an object store. Names are flat."""

    folder: Path
    url: str | None = None
    prefix: str = ""

    @classmethod
    def open(cls, root: Root, name: str, *, shared: bool) -> "Scratch":
        """The scratch space `name` of a root. If `shared`, other machines must see it."""
        if shared and root.remote is not None:
            return cls(root.path(name), root.url, f"{name}/")
        scratch = cls(root.path(name))
        scratch._trust_this_boot_only()
        return scratch

    @cached_property
    def _remote(self) -> Blobs:
        return open_blobs(self.url)

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "url": self.url, "prefix": self.prefix}  # no open connections

    def sizes(self) -> dict[str, int]:
        """The size in bytes of each finished file."""
        if self.url is not None:
            return {blob.name.removeprefix(self.prefix): blob.size for blob in self._remote.list(self.prefix)}
        with os.scandir(self.folder) as entries:
            return {e.name: e.stat().st_size for e in entries if not e.name.startswith(".")}

    def write(self, name: str, parts: Iterable[bytes | memoryview | np.ndarray]) -> None:
        """Write a file from consecutive parts."""
        if self.url is not None:
            self._remote.write(self.prefix + name, b"".join(bytes(memoryview(part).cast("B")) for part in parts))
            return
        temporary = self.folder / f".{name}.{os.getpid()}"
        with temporary.open("wb", buffering=0) as file:
            for part in parts:
                write_all(file, part)
        temporary.rename(self.folder / name)

    def read(self, name: str, start: int, end: int) -> memoryview:
        """Bytes [start, end) of a file."""
        if self.url is not None:
            return self._remote.read_range(Blob(self.prefix + name, end, ""), start, end)
        out = bytearray(end - start)
        self.read_into(name, start, memoryview(out))
        return memoryview(out)

    def mapped(self, name: str, start: int, end: int) -> memoryview:
        """Many bytes of a local file, used once: they are not copied out of the kernel's cache."""
        if start == end:
            return memoryview(b"")
        before = start % mmap.ALLOCATIONGRANULARITY
        with (self.folder / name).open("rb") as file:
            size, at_once = end - start + before, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            pages = mmap.mmap(file.fileno(), size, flags=at_once, prot=mmap.PROT_READ, offset=start - before)
        return memoryview(pages)[before:]

    def read_into(self, name: str, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` of a file."""
        if self.url is not None:
            out[:] = self.read(name, start, start + len(out))
            return
        with (self.folder / name).open("rb", buffering=0) as file:
            file.seek(start)
            while len(out):
                count = file.readinto(out)
                if not count:
                    raise OSError(f"{self.folder / name} ends before byte {start + len(out):,}")
                out = out[count:]

    def remove(self, name: str) -> None:
        """Delete one file."""
        if self.url is not None:
            self._remote.delete(self.prefix + name)
        else:
            (self.folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.url is not None:
            for blob in self._remote.list(self.prefix):
                self._remote.delete(blob.name)

    def _trust_this_boot_only(self) -> None:
        mark = self.folder / ".boot"
        if mark.is_file() and mark.read_text() == boot():
            for torn in self.folder.glob(".*.[0-9]*"):
                torn.unlink()
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        mark.write_text(boot())
