"""Which objects below a URL are data: what a writing job left behind, hid or marked is not.

The rules are those of Hadoop's and Spark's readers: a name that begins with `.` or `_` hides what lies at or below it,
unless it is a partition (`_key=value`).
"""

import logging
import re
from collections.abc import Sequence

from tasks.errors import InputError
from tasks.store.blobs import Blob, Blobs

log = logging.getLogger("fabrating")
SPLIT = re.compile(r"(?:^|/)(train|training|test|testing|validation|valid|val|dev|eval)(?=[-_./]|$)", re.IGNORECASE)
ALIASES = {
    "training": "train",
    "testing": "test",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "test",
}


def data_files(store: Blobs, suffixes: str | tuple[str, ...], without: tuple[str, ...] = ()) -> list[Blob]:
    """The files with such endings, by name, without hidden ones, folder markers and what lies in the folders `without` (`name/`); how many
    hidden ones were left out is logged.

    Raises InputError when there are none, when the folder is a table whose live files only its log knows (Delta, Iceberg),
    or when a data set on the Hub holds several splits and the URL names none; and as `Blobs.list` does.
    """
    listed = [blob for blob in store.list() if not blob.name.startswith(without)]
    url = store.place.url
    _require_no_table(url, listed)
    folders = {name[:end] for name in (blob.name for blob in listed) for end in _slashes(name)}
    found = [blob for blob in listed if blob.name.endswith(suffixes)]
    hidden = [blob for blob in found if is_hidden(blob.name)]
    files = [blob for blob in found if not is_hidden(blob.name) and not (blob.size == 0 and blob.name in folders)]
    if hidden:
        log.warning("%s: left out %d hidden or uncommitted files, such as %s", url, len(hidden), hidden[0].name)
    if not files:
        endings = suffixes if isinstance(suffixes, str) else ", ".join(suffixes)
        raise InputError(f"{url} holds no files ending in {endings}: check the URL.")
    if url.startswith("hf://"):
        _require_one_split(url, files)
    return files


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with `.` or `_` and is no partition."""
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in name.split("/"))


def _slashes(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "/"]


def _require_no_table(url: str, listed: Sequence[Blob]) -> None:
    names = [f"/{blob.name}" for blob in listed]
    kind = None
    if any("/_delta_log/" in name for name in names):
        kind = "Delta"
    elif any(re.search(r"/metadata/[^/]+\.metadata\.json$", name) for name in names):
        kind = "Iceberg"
    if kind:
        raise InputError(
            f"{url} is a table of {kind}, whose folder also holds files of older versions: write its current version as plain "
            "parquet files into a folder of their own (with Spark, DuckDB or Polars), and name that."
        )


def _require_one_split(url: str, files: Sequence[Blob]) -> None:
    splits: dict[str, Blob] = {}
    for blob in files:
        if found := SPLIT.search(blob.name):
            name = found[1].lower()
            splits.setdefault(ALIASES.get(name, name), blob)
    if len(splits) > 1:
        first = splits.get("train", next(iter(splits.values()))).name
        pattern = SPLIT.sub(lambda match: f"{match[0]}*", first.rsplit("/", 1)[-1], count=1)
        pattern = re.sub(r"\*.*(\.\w+)$", r"*\1", pattern)
        raise InputError(
            f"{url} holds the splits {', '.join(sorted(splits))}: name the files of one, such as {url.rstrip('/')}/**/{pattern}."
        )
