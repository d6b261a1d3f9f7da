"""Interface of the storage formats that features are read back from."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from layertap.data.writers.base import map_shapes
from layertap.errors import InputError, one_line
from layertap.records import Array, AttentionMaps, Feature, FeatureSchema, Ragged

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 8 << 20
"""Approximate size of a read where many records are wanted."""

FOREIGN_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, EOFError, OSError, MemoryError)
"""Errors that numpy, zipfile and pyarrow raise on damaged bytes."""

Dtype = Literal["float32", "float16", "int8", "uint8", "int32", "bool", "str"]


class Storage(ABC):
    """One file, open; nothing of it is read before it is asked for.

    Attributes:
        path: the file or folder: a path, or a URL as a string.
        num_records: N.
        features: name -> schema, in the order of the file.
        provenance: what the writer was told.
        has_ids: whether the records have ids.
        columns: name -> type of the columns that the records carry, in the order of the file.
        is_complete: whether all records of the run are there; False of an unfinished folder.
    """

    path: Path | str
    num_records: int
    features: Mapping[str, FeatureSchema]
    provenance: Mapping[str, Any]
    has_ids: bool
    columns: Mapping[str, str] = MappingProxyType({})
    is_complete: bool = True

    def read(self, name: str, begin: int, end: int) -> Feature:
        """Copy records `begin:end` of a feature."""
        with self._damage(name):
            feature = self._read(name, begin, end)
            if not _is_whole(feature, end - begin):
                raise unreadable(self.path, f"{name!r} is damaged: its values do not go with where records end")
            return feature

    def rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Return the input row numbers of records `begin:end`."""
        with self._damage("row"):
            return self._read_rows(begin, end)

    def ids(self, begin: int, end: int) -> list[Any]:
        """Return the ids of records `begin:end`; only where there are ids."""
        with self._damage("id"):
            return self._read_ids(begin, end)

    def values(self, name: str, begin: int, end: int) -> list[Any]:
        """Return the values of records `begin:end` in a carried column."""
        with self._damage(name):
            return self._read_values(name, begin, end)

    @abstractmethod
    def _read(self, name: str, begin: int, end: int) -> Feature:
        """Read records `begin:end` of a feature; foreign errors mean damage."""

    @abstractmethod
    def _read_rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Read the row numbers of records `begin:end`; foreign errors mean damage."""

    @abstractmethod
    def _read_ids(self, begin: int, end: int) -> list[Any]:
        """Read the ids of records `begin:end`; foreign errors mean damage."""

    def _read_values(self, name: str, begin: int, end: int) -> list[Any]:  # noqa: ARG002 - for formats with columns
        """Read the values of records `begin:end` in a carried column; foreign errors mean damage."""
        raise AssertionError(f"{self.path} has no column {name!r}")

    @abstractmethod
    def block_records(self, name: str) -> int:
        """Return how many records of a feature are best read together."""

    @abstractmethod
    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema of the records: `row`, `id` where there are ids, carried columns, features."""

    @abstractmethod
    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all records as Arrow, in order, some MiB at a time."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; later reads are refused."""

    @contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except FOREIGN_ERRORS as error:
            raise unreadable(self.path, f"{what!r} is damaged ({error})") from None


def maps_of(values: Array, shapes: npt.NDArray[np.int64], leading: tuple[int, ...]) -> AttentionMaps:
    """Build attentions from values and shapes [N, k]; ValueError if these differ in more than tokens."""
    maps = AttentionMaps(values, shapes[:, -1], leading)
    if not np.array_equal(map_shapes(maps), shapes):
        raise ValueError("the shapes of records differ in more than their tokens")
    return maps


def _is_whole(feature: Feature, count: int) -> bool:
    """Return whether there are as many values as the records' ends and shapes say."""
    if len(feature) != count:
        return False
    if isinstance(feature, Ragged):
        ends = feature.offsets
        return bool(ends[0] == 0 and (np.diff(ends) >= 0).all() and ends[-1] == len(feature.values))
    if isinstance(feature, AttentionMaps):
        # as floats: damaged lengths are large, and their squares no int64
        size = np.square(feature.lengths.astype(np.float64)).sum() * math.prod(feature.leading)
        return bool((feature.lengths >= 0).all() and size == len(feature.values))
    return True


def parse_provenance(path: Path | str, text: str | bytes) -> dict[str, Any]:
    """Parse the JSON object that a file holds as its provenance."""
    try:
        provenance = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise unreadable(path, f"its provenance is not JSON ({reason})") from None
    if not isinstance(provenance, dict):
        raise unreadable(path, "its provenance is not a JSON object")
    return provenance


def unreadable(path: Path | str, reason: str) -> InputError:
    """Build the error for a file that cannot be read back."""
    return InputError(
        f"{path}: {one_line(reason)}; expected a whole Parquet, safetensors, npz or npy file that layertap wrote"
    )


def feature_dtype(path: Path | str, name: str, dtype: str) -> Dtype:
    """Return a dtype of `FeatureSchema`, or the error that it is none."""
    if dtype not in get_args(Dtype):
        raise unreadable(path, f"{name!r} holds {dtype}, which is no feature's")
    return cast(Dtype, dtype)
