"""Columns that are the folders of a pool's files: `dump=CC-MAIN-2024-10/part-0.parquet`, as Hive, Spark, Polars and DuckDB write them."""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from tasks.store.blobs import Blob

NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_keys(blobs: Sequence[Blob]) -> list[dict[str, pa.Scalar]]:
    """For each blob {key: value} of its folders: numbers where all values of a key in the pool are such, else strings."""
    found = [_of_name(blob.name) for blob in blobs]
    texts = {key for keys in found for key, value in keys.items() if value is not None and not _is_number(value)}
    return [{key: _scalar(value, key in texts) for key, value in keys.items()} for keys in found]


def folder_columns(blobs: Sequence[Blob]) -> Counter[str]:
    """The names of such columns, with the number of blobs that have them."""
    return Counter(key for blob in blobs for key in _of_name(blob.name))


def _of_name(name: str) -> dict[str, str | None]:
    pairs = (part.split("=", 1) for part in name.split("/")[:-1] if "=" in part.lstrip("="))
    return {unquote(key): None if value == NULL else unquote(value) for key, value in pairs}


def _is_number(value: str) -> bool:
    """Whether it is one of at most 64 bits: hashes are longer."""
    if not value.removeprefix("-").replace(".", "", 1).isdecimal():
        return False
    return "." in value or -(2**63) <= int(value) < 2**63


def _scalar(value: str | None, is_text: bool) -> pa.Scalar:
    if is_text or value is None:
        return pa.scalar(value, pa.string() if is_text else pa.float64())
    return pa.scalar(float(value), pa.float64()) if "." in value else pa.scalar(int(value), pa.int64())
