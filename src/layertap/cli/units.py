"""Sizes on the command line, and descriptions of shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from layertap.errors import OptionError

if TYPE_CHECKING:
    from layertap.records import FeatureSchema


def bytes_of(text: str, option: str) -> int:
    """Return the number of bytes that a size such as `20GB`, `1.5 TB`, `8GiB` or `1000000` stands for.

    Raises:
        OptionError: it is no size; naming the option.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(?:([kmgt])(i?))?b?", text.strip().lower())
    if match is None:
        raise OptionError(f"{option} {text!r}: expected a size, as 20GB, 500MB or 8GiB")
    number, unit, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(unit) if unit else 0))
    if size < 1:
        raise OptionError(f"{option} {text!r}: expected a size of at least one byte")
    return size


def in_shape(schema: FeatureSchema, unit: str) -> str:
    """`float32 [384] a text`; `unit` is what there is a value for."""
    axes = (*map(str, schema.shape), *(("T", "T") if schema.maps else ()))
    shape = f" [{', '.join(axes)}]" if axes else ""
    return f"{schema.dtype}{shape} a {unit}"
