"""npy: one array and nothing else."""

from __future__ import annotations

import io

import numpy as np

from layertap.data.writers.base import Writer, WriterOptions, values_of
from layertap.data.writers.spool import refuse_columns, refuse_strings
from layertap.errors import OptionError
from layertap.records import FeatureBatch


class NpyWriter(Writer):
    """One dense feature [N, ...], records in input order. Provenance goes to `<output>.provenance.json`.

    It has no place for row numbers and ids.
    """

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuses carried columns, and anything but one dense feature."""
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
                f"npy holds one dense array, and {names} has a map of its own size for every record; "
                "write npz, safetensors, parquet or jsonl"
            )
        if options.schemas[0].ragged:
            raise OptionError(
                f"npy holds one dense array, and {names} has a value for every token; "
                "write npz, safetensors, parquet or jsonl, or pool it (.mean, .cls, ...)"
            )

    def _start(self) -> None:
        self._schema = self._options.schemas[0]
        self._file = self._parts.create()
        self._file.write(header(np.dtype(self._schema.dtype), (0, *self._schema.shape)))

    def _write(self, batch: FeatureBatch) -> None:
        values = np.ascontiguousarray(values_of(batch.features[self._schema.name]))
        self._file.write(values.reshape(-1).view(np.uint8).data)

    def _finish(self) -> None:
        self._file.seek(0)
        self._file.write(header(np.dtype(self._schema.dtype), (self.records_written, *self._schema.shape)))
        self._parts.commit(self._file, provenance=(self._options.provenance_text + "\n").encode())


def header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The file up to the array's first value; as long for every number of rows (numpy leaves room for it)."""
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    return head.getvalue()
