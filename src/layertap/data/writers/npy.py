"""The npy format: one array, and a second file with offsets if the feature is ragged."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from layertap.data.writers.base import Writer, WriterOptions, values_of
from layertap.data.writers.spill import OFFSETS, SpillFile, refuse_columns, refuse_strings
from layertap.errors import OptionError
from layertap.records import FeatureBatch, Ragged


class NpyWriter(Writer):
    """Writer of one feature as one array, records in input order: dense [N, ...], or ragged [M, ...].

    The offsets of a ragged feature, int64 [N+1], go to `<stem>.offsets.npy`: record i has the rows
    `offsets[i]:offsets[i + 1]`. Provenance goes to `<output>.provenance.json`. The format has no place for row numbers
    and ids.
    """

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuse carried columns, and anything but a single numeric feature."""
        refuse_columns(options)
        refuse_strings(options)
        names = ", ".join(repr(schema.name) for schema in options.schemas)
        if len(options.schemas) != 1:
            raise OptionError(
                f"npy holds one array, and there are {len(options.schemas)} ({names}); "
                "write npz, safetensors, parquet or jsonl, or name one feature"
            )
        if options.schemas[0].maps:
            raise OptionError(
                f"npy holds one array, and {names} has a map of its own size for every record; "
                "write npz, safetensors, parquet or jsonl"
            )

    def _start(self) -> None:
        self._schema = self._options.schemas[0]
        self._values = self._spill(self._schema.name, self._schema.dtype, self._schema.shape)
        self._ends = self._spill(self._schema.name + OFFSETS, np.int64) if self._schema.ragged else None
        if self._ends is not None:
            self._ends.append(np.zeros(1, dtype=np.int64))

    def _write(self, batch: FeatureBatch) -> None:
        feature = batch.features[self._schema.name]
        if self._ends is not None and isinstance(feature, Ragged):
            self._ends.append(feature.offsets[1:] + self._values.shape[0])
        self._values.append(values_of(feature))

    def _finish(self) -> None:
        arrays = [self._values] if self._ends is None else [self._values, self._ends]
        for array in arrays:
            array.file.seek(0)
            array.file.write(header(array.dtype, array.shape))
        ends = None if self._ends is None else self._ends.file
        self._commit(self._values.file, self._options.sidecar, ends)

    def _spill(self, name: str, dtype: Any, row_shape: tuple[int, ...] = ()) -> SpillFile:
        """Create an array file; its header is written again once the length of the array is known."""
        spill = SpillFile(name, self._output.create(), dtype=dtype, row_shape=row_shape)
        spill.file.write(header(spill.dtype, spill.shape))
        return spill


def header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the header of an npy file; its length does not depend on the number of rows, as numpy pads it."""
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    return head.getvalue()
