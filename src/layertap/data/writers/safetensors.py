"""The safetensors format: one tensor per feature."""

from __future__ import annotations

import json
import struct

from layertap.data.writers.base import Writer, WriterOptions
from layertap.data.writers.spill import SpillFile, SpillFiles, check_spilled
from layertap.records import FeatureBatch

METADATA = "__metadata__"
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
ALIGNMENT = 8


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
        # Wide dtypes first, so that each tensor starts at a multiple of its item size.
        ordered = sorted(self._spills.arrays.values(), key=lambda spill: -spill.dtype.itemsize)
        file = self._output.create()
        file.write(header(ordered, self._options.provenance_text))
        for spill in ordered:
            spill.copy_to(file)
            self._spills.drop(spill.name)
        self._commit(file)


def header(spills: list[SpillFile], provenance: str) -> bytes:
    """Return the header of the file: everything before the first tensor."""
    entries: dict[str, object] = {METADATA: {METADATA_KEY: provenance}}
    begin = 0
    for spill in spills:
        end = begin + spill.nbytes
        entries[spill.name] = {
            "dtype": DTYPES[spill.dtype.name],
            "shape": list(spill.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
