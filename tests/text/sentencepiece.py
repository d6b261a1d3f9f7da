"""Read SentencePiece models, which are protocol buffers, without the library."""

from __future__ import annotations

import struct
from pathlib import Path


def charsmap_of(path: Path) -> bytes:
    """Return the normalization table: `normalizer_spec.precompiled_charsmap`, fields 3 and 2."""
    normalizer = next(value for number, value in message_fields(path.read_bytes()) if number == 3)
    return next(value for number, value in message_fields(normalizer) if number == 2)


def pieces_of(path: Path) -> list[tuple[str, float]]:
    """`pieces` (field 1; text and score in it are 1 and 2) of a SentencePiece model."""
    pieces = [dict(message_fields(value)) for number, value in message_fields(path.read_bytes()) if number == 1]
    # Rounded: of a number of many digits, Rust and Python read last bits that differ.
    return [(piece[1].decode("utf-8"), round(struct.unpack("<f", piece[2])[0], 4)) for piece in pieces]


def message_fields(data: bytes) -> list[tuple[int, bytes]]:
    """List the fields of a message as (number, bytes), without those that hold an integer."""
    fields, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        size = varint() if key & 7 == 2 else 4 if key & 7 == 5 else 8
        fields.append((key >> 3, data[at : at + size]))
        at += size
    return fields
