"""How large an output will be, and whether the disk can hold it: told before any work is done."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from layertap.data.formats import STANDARD_OUTPUT, WRITE_FORMATS, output_format
from layertap.errors import OutputError
from layertap.records import FeatureSchema

Unit: TypeAlias = Literal["token", "word", "span"]

STRING_BYTES = 10
"""About what a string of the details takes: a token or word of six bytes, and where it ends."""

OFFSET_BYTES = 8
"""Where a record's values end."""

TEXT_FACTOR = 2.5
"""Characters that JSON takes for a byte of float32, at least."""

UNITS: Mapping[str, Unit] = {"word_offsets": "word", "word_texts": "word"}
"""Details that are not of tokens."""


def output_bytes(
    schemas: Sequence[FeatureSchema],
    *,
    records: int,
    tokens: float,
    words: float = 0,
    spans: float = 0,
    squares: float = 0,
    units: Mapping[str, Unit] | None = None,
) -> int:
    """Bytes of features in a file of numbers (Parquet, safetensors, npz, npy).

    Args:
        schemas: the features.
        records: N.
        tokens, words, spans: how many there are in all records together.
        squares: the sum of the squares of the records' tokens, for attentions.
        units: name -> what a ragged feature has values for, where that is not tokens; a feature's companions
            have its unit. The details know theirs.
    """
    counts = {"token": tokens, "word": words, "span": spans}
    return sum(
        feature_bytes(schema, records=records, values=counts[unit_of(schema, units or {})], squares=squares)
        for schema in schemas
    )


def feature_bytes(schema: FeatureSchema, *, records: int, values: float, squares: float) -> int:
    """Bytes of one feature; `values` are its tokens, words or spans where it is ragged."""
    size = STRING_BYTES if schema.dtype == "str" else np.dtype(schema.dtype).itemsize
    each = size * math.prod(schema.shape)
    if schema.maps:
        shape = OFFSET_BYTES * (len(schema.shape) + 2)
        return math.ceil(each * squares) + records * (OFFSET_BYTES + shape)
    if schema.ragged:
        return math.ceil(each * values) + records * OFFSET_BYTES
    return each * records


def unit_of(schema: FeatureSchema, units: Mapping[str, Unit]) -> Unit:
    """What a ragged feature has a value for."""
    name = schema.name
    return units.get(name) or units.get(name.removesuffix(".scale")) or UNITS.get(name, "token")


def space_needed(format: str, size: int, *, largest: int | None = None) -> int:  # noqa: A002 - as in `open_writer`
    """Bytes of disk while an output is made.

    Args:
        format: a name of `WRITE_FORMATS`.
        size: what `output_bytes` says.
        largest: that of the largest feature alone, or None: not known, perhaps all. safetensors and npz gather each
            array in a file of its own and put these together one by one, so that the largest is there twice.
    """
    if format == "jsonl":
        return math.ceil(size * TEXT_FACTOR)
    if WRITE_FORMATS[format].spilled:
        return size + (size if largest is None else largest)
    return size


def check_space(
    path: str | os.PathLike[str],
    needed_bytes: int,
    *,
    format: str | None = None,  # noqa: A002 - as in `open_writer`
    largest_bytes: int | None = None,
) -> None:
    """Refuses an output that the disk cannot hold.

    Args:
        path: the output, or `-`, which takes no disk.
        needed_bytes: what `output_bytes` says.
        format: of the output; None: by its ending.
        largest_bytes: see `space_needed`.

    Raises:
        OutputError: the disk has less room than needed; both numbers are named.
    """
    if os.fspath(path) == STANDARD_OUTPUT:
        return
    needed = space_needed(output_format(path, format).name, needed_bytes, largest=largest_bytes)
    final = Path(os.path.realpath(path))
    folder = next(parent for parent in final.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        temporary = f" (its temporary files with it; the output alone {_sized(needed_bytes)})"
        raise OutputError(
            f"{path}: about {_sized(needed)} are needed{temporary if needed > needed_bytes else ''}, and "
            f"{_sized(free)} are free in {folder}; write to another disk, ask for less (fewer layers, a pooling, "
            "astype(float16)), or split the input"
        )


def _sized(count: float) -> str:
    """`1.5 GB`, `3.2 MB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
