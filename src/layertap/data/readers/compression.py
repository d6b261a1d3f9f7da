"""Compressed text files: one table of compressions, recognised by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

BUFFER_BYTES = 1 << 20

COMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of the system and of damaged compressed files while bytes are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """Compression of text files: a row of the table.

    Attributes:
        name: name of the program that makes it.
        suffix: ending of file names.
        magic: pattern of the first bytes of every file; no text begins so.
        opened: function that opens a stream of the uncompressed bytes of a compressed stream.
    """

    name: str
    suffix: str
    magic: re.Pattern[bytes]
    opened: Callable[[Any], Any]


def _zstd(stream: Any) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")


COMPRESSIONS = (
    Compression(
        name="gzip",
        suffix=".gz",
        magic=re.compile(rb"\x1f\x8b"),
        opened=lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    ),
    Compression(name="bzip2", suffix=".bz2", magic=re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), opened=bz2.BZ2File),
    Compression(name="xz", suffix=".xz", magic=re.compile(rb"\xfd7zXZ\x00"), opened=lzma.LZMAFile),
    Compression(name="zstd", suffix=".zst", magic=re.compile(rb"\x28\xb5\x2f\xfd"), opened=_zstd),
)


def compression_named(suffix: str) -> Compression | None:
    """Return the compression that an ending of file names stands for, or None."""
    return next((row for row in COMPRESSIONS if row.suffix == suffix.lower()), None)


def compression_of(begin: bytes) -> Compression | None:
    """Return the compression of a stream with these first bytes, or None if it has none."""
    return next((row for row in COMPRESSIONS if row.magic.match(begin)), None)


def uncompressed(stream: Any, compression: Compression) -> BinaryIO:
    """Open a stream of the uncompressed bytes of a compressed stream."""
    return cast(BinaryIO, io.BufferedReader(compression.opened(stream), BUFFER_BYTES))
