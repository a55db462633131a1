"""Thrift's compact protocol, as far as the headers and footers of Parquet need it.

Specification: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. Reading a struct gives a
dictionary of values by field number; to write one, list (number, type, value) in ascending order. `skip` goes over a value without
keeping anything, four times as fast.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEPTH = 16
"""Most levels of nesting: more than any header has, few enough for a hostile one."""

Field = tuple[int, int, Any]


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of 7 bits a byte, and where it ends. Raises IndexError past the end, ValueError above 64 bits."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def read_struct(data: memoryview, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The struct at `at`, and where it ends. Raises ValueError or IndexError for bytes that are not a struct."""
    found: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = read_number(data, at)
        found[number], at = _read_value(data, at, head & 0x0F, depth)
    return found, at + 1


def read_number(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A signed number (zigzag), and where it ends. Raises as `read_varint` does."""
    value, at = read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_value(data: memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > DEPTH:
        raise ValueError("structs nested too deeply")
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind == I8:
        return data[at], at + 1
    if kind in (I16, I32, I64):
        return read_number(data, at)
    if kind == DOUBLE:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == BINARY:
        size, at = read_varint(data, at)
        if at + size > len(data):
            raise ValueError("a string that goes on behind the end")
        return bytes(data[at : at + size]), at + size
    if kind in (LIST, SET):
        count, kind, at = read_list(data, at)
        if kind in (TRUE, FALSE):  # in a list a truth value has a byte of its own
            kind = I8
        values = []
        for _ in range(count):
            value, at = _read_value(data, at, kind, depth + 1)
            values.append(value)
        return values, at
    if kind == STRUCT:
        return read_struct(data, at, depth + 1)
    raise ValueError(f"a value of the unknown type {kind}")


def skip(data: bytes, at: int, kind: int, depth: int = 0) -> int:
    """Where the value of type `kind` at `at` ends. Raises ValueError or IndexError for bytes that are no such value."""
    if kind in (I16, I32, I64):
        while data[at] > 0x7F:
            at += 1
        return at + 1
    if kind in (TRUE, FALSE):
        return at
    if kind == BINARY:
        size, at = read_varint(data, at)
        return at + size
    if depth > DEPTH:
        raise ValueError("structs nested too deeply")
    if kind == STRUCT:
        while head := data[at]:
            at += 1
            if head < 0x10:
                at = skip(data, at, I16)
            kind = head & 0x0F
            if I16 <= kind <= I64:  # as above: most values, and a call costs more than they do
                while data[at] > 0x7F:
                    at += 1
                at += 1
            else:
                at = skip(data, at, kind, depth + 1)
        return at + 1
    if kind in (LIST, SET):
        count, kind, at = read_list(data, at)
        if kind in (TRUE, FALSE, I8):
            return at + count
        for _ in range(count):
            at = skip(data, at, kind, depth + 1)
        return at
    if kind in (I8, DOUBLE):
        return at + (1 if kind == I8 else 8)
    raise ValueError(f"a value of the unknown type {kind}")


def read_list(data: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """How many elements the list at `at` has, their type, and where they begin."""
    count, kind = data[at] >> 4, data[at] & 0x0F
    at += 1
    if count == 15:
        count, at = read_varint(data, at)
    return count, kind, at


def write_varint(value: int) -> bytes:
    """An unsigned number of 7 bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_struct(fields: Iterable[Field]) -> bytes:
    """A struct; numbers ascend by at most 15. A list's value is (type of its elements, elements)."""
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out.append((number - last) << 4 | kind)
        out += _WRITERS[kind](value)
        last = number
    out.append(0)
    return bytes(out)


def _write_number(value: int) -> bytes:
    return write_varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _write_list(value: tuple[int, list[Any]]) -> bytes:
    kind, elements = value
    count = len(elements)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + write_varint(count)
    return head + b"".join(map(_WRITERS[kind], elements))


_WRITERS: dict[int, Callable[[Any], bytes]] = {
    I16: _write_number,
    I32: _write_number,
    I64: _write_number,
    BINARY: lambda value: write_varint(len(value)) + value,
    LIST: _write_list,
    STRUCT: write_struct,
}
