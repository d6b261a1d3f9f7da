"""Sizes on the command line."""

from __future__ import annotations

import re

from layertap.errors import OptionError


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
