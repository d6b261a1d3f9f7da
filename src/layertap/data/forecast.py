"""Forecast of the size of an output, and whether the disk can hold it, before any work is done."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from layertap.data.formats import STANDARD_OUTPUT, WRITE_FORMATS, output_format
from layertap.errors import OutputError
from layertap.records import FeatureSchema
from layertap.words import in_bytes

OFFSET_BYTES = 8
"""Bytes of the offset at which a record's values end."""

TEXT_FACTOR = 2.5
"""Fewest characters that JSON takes for a byte of float32."""


def feature_bytes(schema: FeatureSchema, *, records: int, values: float, squares: float) -> int:
    """Return the bytes of one feature in a file of numbers (Parquet, safetensors, npz, npy).

    Args:
        schema: the feature.
        records: number of records.
        values: number of tokens, words or spans, where the feature has a value for each of them.
        squares: sum of the squares of the records' tokens, for attentions.
    """
    size = math.ceil(schema.value_bytes(records=records, values=values, squares=squares))
    if schema.maps:
        return size + records * OFFSET_BYTES * (len(schema.shape) + 3)
    return size + records * OFFSET_BYTES if schema.ragged else size


def space_needed(format: str, size: int, *, largest: int | None = None) -> int:  # noqa: A002 - as in `open_writer`
    """Return the bytes of disk that are taken while an output is made.

    Args:
        format: a name of `WRITE_FORMATS`.
        size: what `feature_bytes` says of all features together.
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
    """Refuse an output that the disk cannot hold.

    Args:
        path: the output, or `-`, which takes no disk.
        needed_bytes: what `feature_bytes` says of all features together.
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
        temporary = f" (its temporary files with it; the output alone {in_bytes(needed_bytes)})"
        raise OutputError(
            f"{path}: about {in_bytes(needed)} are needed{temporary if needed > needed_bytes else ''}, and "
            f"{in_bytes(free)} are free in {folder}; write to another disk, ask for less (fewer layers, a pooling, "
            "astype(float16)), or split the input"
        )
