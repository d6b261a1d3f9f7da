"""The safetensors format: one tensor per feature."""

from __future__ import annotations

import struct

from layertap.data.writers.base import Writer, WriterOptions
from layertap.data.writers.spill import SpillFiles, check_spilled
from layertap.records import FeatureBatch
from layertap.safetensors_header import METADATA, encode_header

METADATA_KEY = "layertap"
DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "int32": "I32",
    "int64": "I64",
    "uint64": "U64",
}


class SafetensorsWriter(Writer):
    """Writer of a file with the tensors `row`, `id` (if there are ids), and the features.

    Ids and features have the layout of `SpillFiles`. Provenance is JSON in the metadata of the header, under the key
    `layertap`. The format is described at https://github.com/huggingface/safetensors#format.
    """

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuse carried columns, strings, and names that clash."""
        check_spilled(options, METADATA)

    def _start(self) -> None:
        self._spills = SpillFiles(self._output, self._options)

    def _write(self, batch: FeatureBatch) -> None:
        self._spills.write(batch)

    def _finish(self) -> None:
        by_name = self._spills.arrays
        arrays = {name: (DTYPES[spill.dtype.name], spill.shape) for name, spill in by_name.items()}
        header, order = encode_header(arrays, metadata={METADATA_KEY: self._options.provenance_text})
        file = self._output.create()
        file.write(struct.pack("<Q", len(header)) + header)
        for name in order:
            by_name[name].copy_to(file)
            self._spills.drop(name)
        self._commit(file)
