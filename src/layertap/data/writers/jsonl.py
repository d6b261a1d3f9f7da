"""JSON Lines, one object per record: for small outputs, and for people to read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from layertap.data.json_text import json_text
from layertap.data.writers.base import ID, ROW, Writer
from layertap.errors import InputError
from layertap.records import Array, FeatureBatch, Record


class JsonlWriter(Writer):
    """Writer of JSON Lines with the keys `row`, `id` (if there are ids), the carried columns, and the features.

    Numbers have as many digits as their dtype needs to be read back exactly; values that are not finite are `NaN`,
    `Infinity` and `-Infinity`. A ragged feature is a list with one entry per token, attentions are nested lists
    [*leading, T, T]. Provenance goes to `<output>.provenance.json`.
    """

    def _start(self) -> None:
        self._file = self._output.create()
        self._keys = [json.dumps(schema.name) for schema in self._options.schemas]
        self._taken = {ROW, *(schema.name for schema in self._options.schemas)}

    def _write(self, batch: FeatureBatch) -> None:
        features = [batch.features[schema.name] for schema in self._options.schemas]
        for i, record in enumerate(batch.records):
            try:
                head = json_text(self._head(record))
            except TypeError as error:
                raise InputError(f"row {record.row + 1}: {error}; leave its column out") from None
            named = "".join(
                f", {key}: {json_numbers(feature[i])}" for key, feature in zip(self._keys, features, strict=True)
            )
            self._file.write(f"{head[:-1]}{named}}}\n".encode())
        if self._output.path is None:
            self._file.flush()  # whoever reads a pipe sees whole batches as they are done

    def _finish(self) -> None:
        self._commit(self._file, self._options.sidecar)

    def _head(self, record: Record) -> dict[str, Any]:
        head: dict[str, Any] = {ROW: record.row}
        if ID not in record.columns and (record.id is not None or ID in self._options.column_types):
            head[ID] = record.id
        clash = [name for name in record.columns if name in self._taken or name in head]
        if clash:
            raise InputError(
                f"row {record.row + 1}: column {', '.join(map(repr, clash))} has the name of another key of "
                "the output; name the columns to carry (--columns) without it"
            )
        return head | dict(record.columns)


def json_numbers(values: Array) -> str:
    """Encode an array as nested JSON lists, with the shortest text of each number that its dtype reads back exactly."""
    if values.ndim > 1:
        return f"[{', '.join(map(json_numbers, values))}]"
    if values.dtype.kind in "Ob":  # strings and truth
        return json_text(values.tolist())
    # One vector at a time: numpy's texts take 128 bytes a number.
    texts = values.astype(np.str_)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        texts = np.where(np.isnan(values), "NaN", texts)
        texts = np.where(np.isinf(values), np.where(values > 0, "Infinity", "-Infinity"), texts)
    words = texts.tolist()
    return words if isinstance(words, str) else f"[{', '.join(words)}]"
