"""Conversion of carried values to JSON text."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import uuid
from typing import Any


def json_text(value: Any) -> str:
    """Return a value as JSON text, in its own script and still UTF-8.

    What JSON has no place for is written as a string: dates and times in ISO 8601, decimals in full, bytes in
    base64. NaN and the infinities are written `NaN`, `Infinity` and `-Infinity`, as Python reads them.
    """
    text = json.dumps(value, ensure_ascii=False, default=_as_json)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can hold
        return json.dumps(value, default=_as_json)
    return text


def plain_text(value: Any) -> str:
    """Return a value as text: a string as it is, a number as JSON writes it, anything with parts as JSON text."""
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal | uuid.UUID):
        return str(_as_json(value))
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return json_text(value)
        return value
    return json_text(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime.date | datetime.time):  # datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no JSON form")
