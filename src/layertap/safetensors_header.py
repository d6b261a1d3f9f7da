"""Reads the header of a safetensors file, as strictly as the format's own library, and encodes one.

Format: 8 bytes little-endian N, N bytes of JSON (name -> dtype, shape, data_offsets), then the data. Checked here:
every entry by itself, and that the data lies without gap and overlap from the header to the end of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layertap.stored_file import StoredBytes, StoredFile

DTYPE_SIZES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Dtypes of the format, by the format's own names -> bytes a value."""

MAX_HEADER = 16 << 20
"""Bytes of a header at most; the format allows 100 MB, and that of a model with 10,000 weights has 1 MB."""

METADATA = "__metadata__"

ALIGNMENT = 8
"""Headers are as long as a multiple of this, so that arrays behind them are aligned."""


class HeaderError(ValueError):
    """A header that is not as the format says; the message does not name the file.

    Attributes:
        cut_short: whether the file ends too early, as after an interrupted download.
    """

    def __init__(self, reason: str, *, cut_short: bool = False) -> None:
        self.cut_short = cut_short
        super().__init__(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEntry:
    """An array of a safetensors file.

    Attributes:
        dtype: name in the format ("F32", "BF16", ...).
        shape: sizes, outermost first.
        data: where its bytes are.
    """

    dtype: str
    shape: tuple[int, ...]
    data: StoredBytes


def read_header(file: StoredFile) -> tuple[dict[str, HeaderEntry], dict[str, Any]]:
    """Read and check the header of an open file.

    Returns:
        Name -> array, in the order of the header, and the file's metadata.

    Raises:
        HeaderError: the file is cut short, or its header is not as the format says.
    """
    size = file.size
    if size < 8:
        raise HeaderError(
            f"not a safetensors file: expected 8 bytes with the header's length, found {size} in all", cut_short=True
        )
    header_size = int.from_bytes(file.read(0, 8), "little")
    if header_size > MAX_HEADER:
        raise HeaderError(
            f"not a safetensors file: expected a header of at most {MAX_HEADER} bytes, found {header_size}"
        )
    begin = 8 + header_size
    if begin > size:
        raise HeaderError(f"cut short: expected a header of {header_size} bytes, found {size - 8}", cut_short=True)
    header = _parse(bytes(file.read(8, begin)))
    metadata = header.pop(METADATA, {})
    entries = {name: _entry(name, value) for name, value in header.items()}
    _check_contiguous(entries, size - begin)
    arrays = {
        name: HeaderEntry(dtype=dtype, shape=shape, data=StoredBytes(file, begin + first, last - first))
        for name, (first, last, dtype, shape) in entries.items()
    }
    return arrays, metadata if isinstance(metadata, dict) else {}


def _parse(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if not name.isprintable():
                raise HeaderError(f"expected printable names in the header, found {name[:60]!r}")
            if name in values:
                raise HeaderError(f"{name[:80]!r}: expected once, found twice in the header")
            values[name] = value
        return values

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except HeaderError:
        raise
    except (ValueError, RecursionError) as problem:
        reason = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)[:200]
        raise HeaderError(f"the header is not JSON: {reason}; the file is damaged") from problem
    if not isinstance(header, dict):
        raise HeaderError("the header is not a JSON object; the file is damaged")
    return header


def _check_contiguous(entries: Mapping[str, tuple[int, int, str, tuple[int, ...]]], data_size: int) -> None:
    expected = 0
    for name, (begin, end, _, _) in sorted(entries.items(), key=lambda entry: entry[1][:2]):
        if begin != expected:
            raise HeaderError(f"{name}: expected its data at offset {expected}, found {begin}; the file is damaged")
        expected = end
    if expected != data_size:
        cut_short = expected > data_size
        reason = "the file is cut short" if cut_short else "the file is damaged"
        raise HeaderError(f"expected {expected} bytes of data, found {data_size}: {reason}", cut_short=cut_short)


def _entry(name: str, value: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """Return begin, end, dtype and shape of one header entry, each checked by itself."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"{name}: expected dtype, shape and data_offsets in the header")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_SIZES:
        raise HeaderError(f"{name}: expected a dtype of {', '.join(DTYPE_SIZES)}, found {_short(dtype)}")
    if not _are_sizes(shape) or len(shape) > 32:
        raise HeaderError(f"{name}: expected a list of at most 32 sizes as shape, found {_short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"{name}: expected two ascending data_offsets, found {_short(offsets)}")
    needed = math.prod(shape) * DTYPE_SIZES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise HeaderError(f"{name}: expected {needed} bytes for {dtype} {shape}, found {offsets[1] - offsets[0]}")
    return offsets[0], offsets[1], dtype, tuple(shape)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _short(value: Any) -> str:
    # Never the repr of anything nested: a hostile header nests as deep as the parser allows.
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    flat = all(item is None or isinstance(item, str | int | float) for item in items)
    return repr(value)[:80] if flat else "something nested"


def encode_header(
    arrays: Mapping[str, tuple[str, Sequence[int]]], *, metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Return the JSON of a header, and the names of the arrays in the order in which their bytes follow it.

    Wide dtypes come first, so that each array starts at a multiple of its item size.

    Args:
        arrays: name -> dtype, by the format's name, and shape.
        metadata: texts by name, for readers that ask for them.
    """
    order = sorted(arrays, key=lambda name: -DTYPE_SIZES[arrays[name][0]])
    entries: dict[str, object] = {METADATA: dict(metadata)}
    begin = 0
    for name in order:
        dtype, shape = arrays[name]
        end = begin + DTYPE_SIZES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % ALIGNMENT), order
