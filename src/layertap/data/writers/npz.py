"""The npz format: a zip archive of arrays, as `numpy.load` reads it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np

from layertap.data.writers.base import ID, Writer, WriterOptions
from layertap.data.writers.npy import header
from layertap.data.writers.spill import OFFSETS, SpillFiles, check_spilled, checked_id
from layertap.errors import InputError
from layertap.records import Array, FeatureBatch

PROVENANCE = "provenance"
LONGEST_ID = 1024
IDS_AT_ONCE = 1 << 16


class NpzWriter(Writer):
    """Writer of an archive with the arrays `row`, `id` (if there are ids), `provenance`, and the features.

    Ids are int64 or str. The features have the layout of `SpillFiles`. Provenance is JSON in a string array without
    axes: `json.loads(str(file["provenance"]))`.
    """

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuse carried columns, strings, and names that clash."""
        check_spilled(options, PROVENANCE)

    def _start(self) -> None:
        self._spills = SpillFiles(self._output, self._options)

    def _write(self, batch: FeatureBatch) -> None:
        if ID + OFFSETS in self._spills.arrays:
            self._check_ids(batch)
        self._spills.write(batch)

    def _finish(self) -> None:
        file = self._output.create()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name in list(self._spills.arrays):
                if name == ID + OFFSETS:
                    continue
                if name == ID and ID + OFFSETS in self._spills.arrays:
                    self._add_strings(archive)
                    continue
                spill = self._spills.arrays[name]
                with _member(archive, f"{name}.npy") as member:
                    member.write(header(spill.dtype, spill.shape))
                    spill.copy_to(member)
                self._spills.drop(name)
            text = np.array(self._options.provenance_text)  # ASCII, never empty
            with _member(archive, f"{PROVENANCE}.npy") as member:
                member.write(header(text.dtype, ()) + text.tobytes())
        self._commit(file)

    def _check_ids(self, batch: FeatureBatch) -> None:
        for record in batch.records:
            text = str(checked_id(record, self._options.format))
            if len(text) > LONGEST_ID or text.endswith("\0"):
                why = "ends in NUL" if text.endswith("\0") else f"is longer than {LONGEST_ID} characters"
                raise InputError(
                    f"row {record.row + 1}: the id {why}, which an array of strings in numpy cannot hold; "
                    "write safetensors, parquet or jsonl"
                )

    def _add_strings(self, archive: zipfile.ZipFile) -> None:
        longest = max((len(text) for texts in self._strings() for text in texts), default=1)
        dtype = np.dtype(f"<U{max(1, longest)}")
        with _member(archive, f"{ID}.npy") as member:
            member.write(header(dtype, (self.records_written,)))
            for texts in self._strings():
                member.write(np.array(texts, dtype=dtype).tobytes())
        self._spills.drop(ID)
        self._spills.drop(ID + OFFSETS)

    def _strings(self) -> Iterator[list[str]]:
        ids, offsets = self._spills.arrays[ID].file, self._spills.arrays[ID + OFFSETS].file
        ids.seek(0)
        for begin in range(0, self.records_written, IDS_AT_ONCE):
            count = min(IDS_AT_ONCE, self.records_written - begin)
            offsets.seek(begin * 8)
            bounds: Array = np.frombuffer(offsets.read((count + 1) * 8), dtype=np.int64)
            data = ids.read(int(bounds[-1] - bounds[0]))
            bounds = bounds - bounds[0]
            yield [data[b:e].decode() for b, e in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


def _member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    # Without a fixed date a member gets the current time, and equal inputs would give different files.
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    return cast(BinaryIO, archive.open(info, "w", force_zip64=True))
