"""Thrift's compact protocol, as far as the headers and footers of Parquet need it.

Specification: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. `skip` goes over a value
without keeping anything.
"""

from typing import Any

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEPTH = 16
"""Most levels of nesting: more than any header has, few enough for a hostile one."""


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
    """The numbers, truth values and structs of the struct at `at`, by field, and where it ends.

    Raises ValueError or IndexError for bytes that are not a struct.
    """
    if depth > DEPTH:
        raise ValueError("structs nested too deeply")
    found: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        number, at = read_field(data, at, number)
        kind = head & 0x0F
        if kind in (I16, I32, I64):
            found[number], at = read_number(data, at)
        elif kind in (TRUE, FALSE):
            found[number] = kind == TRUE
        elif kind == STRUCT:
            found[number], at = read_struct(data, at, depth + 1)
        else:
            at = skip(data, at, kind, depth)
    return found, at + 1


def read_field(data: bytes | memoryview, at: int, before: int) -> tuple[int, int]:
    """The number of the field whose head is at `at`, behind field `before`, and where its value begins."""
    return (before + (data[at] >> 4), at + 1) if data[at] > 0x0F else read_number(data, at + 1)


def read_number(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A signed number (zigzag), and where it ends. Raises as `read_varint` does."""
    value, at = read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def skip(data: bytes | memoryview, at: int, kind: int, depth: int = 0) -> int:
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
