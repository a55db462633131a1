"""Headers of pages as Parquet writes them: Thrift's compact protocol, for structs of numbers.

To write a struct, list (number, type, value) in ascending order.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tasks.corpus.parquet.thrift import I32, STRUCT

Field = tuple[int, int, Any]


def write_varint(value: int) -> bytes:
    """An unsigned number of 7 bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_struct(fields: Iterable[Field]) -> bytes:
    """A struct; numbers ascend by at most 15."""
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out.append((number - last) << 4 | kind)
        out += _WRITERS[kind](value)
        last = number
    out.append(0)
    return bytes(out)


def _write_number(value: int) -> bytes:
    return write_varint(value << 1 if value >= 0 else (-value << 1) - 1)


_WRITERS: dict[int, Callable[[Any], bytes]] = {I32: _write_number, STRUCT: write_struct}
