"""Base class of all writers: it takes batches, and leaves one whole file or nothing."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from layertap.data.writers.companions import error_list_content
from layertap.errors import OutputError, UsageError
from layertap.files import StagedOutput
from layertap.records import Array, AttentionMaps, Feature, FeatureBatch, FeatureSchema, Ragged

if TYPE_CHECKING:
    import pyarrow as pa

    from layertap.data.readers.base import RowError

ROW = "row"
ID = "id"

AXES = "axes"
"""Key beside the provenance under which a file names the axes of each feature, `record` first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """Everything that a writer needs to know about its output.

    Attributes:
        format: name of the format.
        schemas: schemas of the features, in column order.
        column_types: Arrow types of the columns that records carry; the key `id` stands for `Record.id`, the value None
            for JSON text.
        provenance: the model and the options that the features depend on, as JSON values.
    """

    format: str
    schemas: tuple[FeatureSchema, ...]
    column_types: Mapping[str, pa.DataType | None]
    provenance: Mapping[str, Any]
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def provenance_text(self) -> str:
        """Provenance and the names of all axes as JSON text; equal values give equal text."""
        axes = {schema.name: ["record", *schema.axes] for schema in self.schemas}
        return json.dumps({**self.provenance, AXES: axes}, sort_keys=True)

    @property
    def sidecar(self) -> bytes:
        """Content of the provenance file, for formats that cannot hold provenance themselves."""
        return (self.provenance_text + "\n").encode()


class Writer(ABC):
    """Writes batches of features to one output.

    As a context manager, a writer closes when the block ends normally and aborts when it raises, also on Ctrl-C.
    After a failure in `write` or `close`, nothing is left behind and an earlier output is unchanged.

    Attributes:
        records_written: number of records written so far.
    """

    def __init__(self, output: StagedOutput, options: WriterOptions) -> None:
        self.records_written = 0
        self._errors: Sequence[RowError] = ()
        self._output = output
        self._options = options
        self._open = True
        with self._whole_or_nothing():
            self._start()

    @classmethod
    def check(cls, options: WriterOptions) -> None:
        """Refuse features or columns that the format cannot hold, before any file is touched."""
        refuse_clashes(options, [ROW, *options.column_types])

    @property
    def name(self) -> str:
        """Name of the output in messages."""
        return self._output.name

    @property
    def standing(self) -> str:
        """Clause for messages that describes the current state of the output."""
        return self._output.standing

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how values were written, in whole sentences."""
        return ()

    def list_errors(self, errors: Sequence[RowError]) -> None:
        """Record the rows that were left out; their list appears together with the output."""
        self._errors = errors

    def write(self, batch: FeatureBatch) -> None:
        """Append a batch of consecutive records.

        Raises:
            OutputError: the batch cannot be written, for example because the disk is full; temporary files are removed.
            InputError: a carried value does not fit the output.
        """
        assert self._open, "write after close or abort"
        if not len(batch):
            return
        for schema in self._options.schemas:
            check_feature(schema, batch)
        with self._whole_or_nothing():
            self._write(batch)
        self.records_written += len(batch)

    def close(self) -> None:
        """Complete the output and give it its name; further calls do nothing."""
        if not self._open:
            return
        with self._whole_or_nothing():
            self._finish()
        self._open = False

    def abort(self) -> None:
        """Remove all temporary files of the output."""
        self._open = False
        self._output.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _start(self) -> None:
        """Open the temporary file or files."""

    @abstractmethod
    def _write(self, batch: FeatureBatch) -> None:
        """Append a batch of at least one record."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is still buffered, and commit the output."""

    def _commit(self, file: BinaryIO, *companions: BinaryIO | bytes | None) -> None:
        """Give the output, its companions and the list of errors their names."""
        self._output.commit(file, *companions, error_list_content(self._errors) if self._errors else None)

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.abort()
            if isinstance(error, OutputError):
                raise  # its message describes the state already
            raise self._output.failure(error) from error
        except BaseException:
            self.abort()
            raise


def refuse_clashes(options: WriterOptions, names: list[str]) -> None:
    """Refuse features whose names are already used in the output by one of `names`."""
    taken = set(names)
    clashes = [schema.name for schema in options.schemas if schema.name in taken]
    if clashes:
        raise UsageError(
            f"{', '.join(map(repr, clashes))}: a feature and a column of the output have the same name; "
            "give the feature another (name = expression), or name the columns to carry (--columns) without it"
        )
    if ROW in options.column_types:
        raise UsageError(
            "the input's column 'row' cannot be carried: the output's own 'row' holds the input row numbers; "
            "name the columns to carry (--columns) without it, or rename it"
        )
    for name in options.constants.keys() & options.column_types.keys():
        raise UsageError(
            f"the input's column {name!r} cannot be carried: the output's own {name!r} names the input of each record; "
            "name the columns to carry (--columns) without it, or rename it"
        )


def check_feature(schema: FeatureSchema, batch: FeatureBatch) -> None:
    """Assert that a feature matches its schema."""
    feature = batch.features[schema.name]
    assert isinstance(feature, Ragged) == schema.ragged, schema
    assert isinstance(feature, AttentionMaps) == schema.maps, schema
    values = values_of(feature)
    assert values.dtype == value_dtype(schema), (schema, values.dtype)
    if isinstance(feature, AttentionMaps):
        assert (feature.leading, values.shape) == (schema.shape, (feature.offsets[-1],)), (schema, values.shape)
    else:
        assert values.shape[1:] == schema.shape, (schema, values.shape)
    assert len(feature) == len(batch), (schema, len(feature), len(batch))


def value_dtype(schema: FeatureSchema) -> np.dtype[Any]:
    """Return the dtype of a feature's values in memory."""
    return np.dtype(object if schema.dtype == "str" else schema.dtype)


def values_of(feature: Feature) -> Array:
    """Return the values of a feature, concatenated over records: [N, ...], ragged [M, ...], or attention maps [M]."""
    return feature.values if isinstance(feature, Ragged | AttentionMaps) else feature


def map_shapes(feature: AttentionMaps) -> npt.NDArray[np.int64]:
    """Return the shape of each record's attention map, [*leading, T_i, T_i], as int64 [N, k]."""
    leading = np.broadcast_to(np.array(feature.leading, dtype=np.int64), (len(feature), len(feature.leading)))
    lengths = np.asarray(feature.lengths, dtype=np.int64)[:, None]
    return np.concatenate([leading, lengths, lengths], axis=1)
