"""What every format offers to those who read features back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from layertap.errors import InputError
from layertap.records import Feature, FeatureSchema

BLOCK_BYTES = 8 << 20
"""About what is read at once where many records are wanted."""

Dtype = Literal["float32", "float16", "int8", "uint8", "int32", "bool", "str"]


class Storage(ABC):
    """One file, open; nothing of it is read before it is asked for.

    Attributes:
        path: the file.
        num_records: N.
        features: name -> schema, in the order of the file.
        provenance: what the writer was told.
        has_ids: whether the records have ids.
    """

    path: Path
    num_records: int
    features: Mapping[str, FeatureSchema]
    provenance: Mapping[str, Any]
    has_ids: bool

    @abstractmethod
    def read(self, name: str, begin: int, end: int) -> Feature:
        """Records `begin:end` of a feature, a copy."""

    @abstractmethod
    def rows(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Input row numbers of records `begin:end`."""

    @abstractmethod
    def ids(self, begin: int, end: int) -> list[Any]:
        """Ids of records `begin:end`; only where there are ids."""

    @abstractmethod
    def block_records(self, name: str) -> int:
        """Records of a feature that are well read together."""

    @abstractmethod
    def close(self) -> None:
        """Lets the file go."""


def unreadable(path: Path, reason: str) -> InputError:
    """The one error of a file that cannot be read back."""
    return InputError(f"{path}: {reason}; expected a whole Parquet, safetensors, npz or npy file that layertap wrote")


def feature_dtype(path: Path, name: str, dtype: str) -> Dtype:
    """A dtype of `FeatureSchema`, or the error that it is none."""
    if dtype not in get_args(Dtype):
        raise unreadable(path, f"{name!r} holds {dtype}, which is no feature's")
    return cast(Dtype, dtype)
