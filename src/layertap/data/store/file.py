"""`layertap.open`: a file of features, read back record by record and by id."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from layertap.data.remote import is_remote
from layertap.data.store.axes import SCALE, with_axes
from layertap.data.store.carried import CarriedColumn
from layertap.data.store.column import FeatureColumn, place_of
from layertap.data.store.ids import Ids
from layertap.data.store.storage import FOREIGN_ERRORS, Storage, unreadable
from layertap.data.writers.base import AXES
from layertap.errors import InputError, OptionError, UsageError, printable
from layertap.files import read_settled
from layertap.records import Array, FeatureSchema
from layertap.stored_file import StoredFile

JSONL_SUFFIXES = (".jsonl", ".ndjson")
LONGEST_MAGIC = 9


class FeatureFile:
    """Features in a file or in a folder of shards, none of them in memory before it is asked for.

    `file[i]` is record i as a dict of arrays, `file[a:b]` records as a dict of features, `file["name"]` one feature as
    a sequence (`FeatureColumn`), `file.record(id)` the record with an id, `file.columns["label"]` a column that came
    with the input. A context manager; what it gave stays.

    Tokens, words and spans are the first axis of a record's array and layers the second ([T, L, H]), as in the file
    itself; `file.features[name].axes` names the axes.

    Attributes:
        path: the file or folder.
        is_complete: whether all records of the run are there; False only of an unfinished folder (`partial=True`).
        features: name -> dtype, shape and names of the axes.
        columns: name -> column that the records carry from the input; Parquet only, as the other formats have none.
        provenance: model, features and options that the file was made with.
    """

    def __init__(self, storage: Storage, *, is_partial: bool = False) -> None:
        self.path = storage.path
        self.is_complete = storage.is_complete
        self._is_partial = is_partial
        provenance = storage.provenance
        self.features: Mapping[str, FeatureSchema] = {
            name: with_axes(schema, provenance) for name, schema in storage.features.items()
        }
        self.columns: Mapping[str, CarriedColumn] = {
            name: CarriedColumn(name, functools.partial(storage.values, name), length=storage.num_records, type=kind)
            for name, kind in storage.columns.items()
        }
        self.provenance: Mapping[str, Any] = {key: value for key, value in provenance.items() if key != AXES}
        self._storage = storage
        self._ids = Ids(storage) if storage.has_ids else None

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """int64 [N], each record's row number in its input: they differ from 0 .. N-1 where rows were left out.

        In a folder with several inputs, `columns["file"]` names the input of each record.
        """
        return self._storage.rows(0, len(self))

    @property
    def ids(self) -> Ids | None:
        """The records' ids, a lazy sequence; None where the input had none."""
        return self._ids

    def record(self, id: object) -> dict[str, Array]:  # noqa: A002 - the field's name
        """Return the record with an id, as `file[i]` gives it. The first call reads all ids.

        Raises:
            KeyError: there is no such id.
            UsageError: the file has no ids, or several records have this one.
        """
        if self._ids is None:
            raise UsageError(f"{self.path} has no ids; take records by their number, file[i]")
        try:
            places = self._ids.places(id)
        except TypeError:
            raise UsageError(f"{self.path}: an id is a str or an int, not {type(id).__name__}") from None
        if not places:
            raise KeyError(f"{self.path}: there is no record with the id {id!r}")
        if len(places) > 1:
            shown = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
            raise UsageError(f"{self.path}: {len(places)} records have the id {id!r}: file[i] of {shown}")
        return self[places[0]]

    def __len__(self) -> int:
        return self._storage.num_records

    @overload
    def __getitem__(self, key: str) -> FeatureColumn: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Array]: ...
    @overload
    def __getitem__(self, key: slice) -> dict[str, Any]: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return self._column(key)
        if not isinstance(key, slice):
            key = place_of(key, len(self))
        return {name: self._column(name)[key] for name in self.features}

    def __iter__(self) -> Iterator[dict[str, Array]]:
        columns = [self._column(name) for name in self.features]
        for values in zip(*columns, strict=True):
            yield dict(zip(self.features, values, strict=True))

    def block_records(self, name: str) -> int:
        """Return how many consecutive records of a feature are best read together, about 8 MiB of them."""
        return self._storage.block_records(name)

    def __contains__(self, name: object) -> bool:
        return name in self.features

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return all records as an Arrow C stream, in a PyCapsule: how libraries take each other's tables.

        `pyarrow.table(file)`, `polars.DataFrame(file)`, `pandas.DataFrame.from_arrow(file)` call it. The columns are
        `row`, `id` where there are ids, the carried columns and the features, as in a Parquet file; a stream holds a
        few MiB at a time.
        """
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_batches(self._storage.arrow_schema(), self._storage.arrow_batches())
        return reader.__arrow_c_stream__(requested_schema)

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._storage.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(open, partial=self._is_partial), (self.path,)

    def __repr__(self) -> str:
        features = ", ".join(f"{name!r}: {schema.described}" for name, schema in self.features.items())
        columns = f", columns {list(self.columns)}" if self.columns else ""
        return f"FeatureFile({str(self.path)!r}, {len(self)} records, features {{{features}}}{columns})"

    def _column(self, name: str) -> FeatureColumn:
        if name in self.columns:
            raise KeyError(f"{self.path}: {name!r} is a column of the input, and no feature: file.columns[{name!r}]")
        if name not in self.features:
            raise KeyError(
                f"{self.path}: there is no feature {name!r}; there are {', '.join(map(repr, self.features))}"
            )
        schema = self.features[name]
        has_scales = schema.dtype == "int8" and name + SCALE in self.features
        return FeatureColumn(
            schema,
            functools.partial(self._storage.read, name),
            length=len(self),
            block_records=self._storage.block_records(name),
            scales=self._column(name + SCALE) if has_scales else None,
        )


def open(  # noqa: A001 - `layertap.open`, as gzip.open
    path: str | os.PathLike[str],
    *,
    partial: bool = False,
) -> FeatureFile:
    """Open features that layertap wrote: a Parquet, safetensors, npz or npy file, or a folder of shards.

    A folder gives the records of all its shards, in the order of the inputs; a few shards are open at a time. One that
    grows meanwhile is read as it was when it was opened.

    Of safetensors, npz and npy a record costs its own bytes; Parquet is read a row group (8 MiB) at a time, which is
    quick in order and slow at random places. The file is held open and may be read from several threads. If it is
    written to or truncated meanwhile, the next read raises `InputError`; if another file is renamed over it, reads go
    on in the old one.

    Args:
        path: the file or folder, or the URL of a folder or Parquet file. A file's format is told by its first bytes.
        partial: open the finished shards of a folder whose extraction is unfinished; without, such a folder is refused.

    Raises:
        InputError: no such file; a truncated or damaged one; one that layertap did not write; JSONL; an unfinished
            folder.
        OptionError: `partial` with a file, which is always whole.
    """
    if is_remote(path):
        return _open_remote(os.fspath(path), partial)
    place = Path(path)
    if "\0" in str(place):
        raise InputError(f"{str(place)!r}: cannot be read: its name holds a NUL character")
    if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises for names that are too long
        from layertap.data.store.folder import open_folder

        return FeatureFile(open_folder(place, partial_=partial), is_partial=partial)
    if partial and os.path.lexists(place):
        raise OptionError(f"{printable(place)}: partial=True is for folders of features, and this is none")
    # An output of several files may be replaced while it is opened, or may have been left half replaced by a kill.
    return read_settled(Path(os.path.realpath(place)), lambda: _open(place))


def _open_remote(url: str, is_partial: bool) -> FeatureFile:
    """Open a folder of features, or a Parquet file, on an object store."""
    from layertap.data.remote import RemotePlace
    from layertap.data.store.folder import open_folder
    from layertap.data.store.parquet import ParquetStorage, RemoteStored

    place = RemotePlace.of(url)
    if place.entry() is None:
        return FeatureFile(open_folder(place, partial_=is_partial), is_partial=is_partial)
    if is_partial:
        raise OptionError(f"{printable(url)}: partial=True is for folders of features, and this is a file")
    file = place.open()
    try:
        if file.read(4) != b"PAR1":
            raise InputError(
                f"{printable(url)}: only folders of features and Parquet are opened remotely; download this file"
            )
        return FeatureFile(ParquetStorage(url, RemoteStored(file)))
    except BaseException:
        file.close()
        raise


def _open(path: Path) -> FeatureFile:
    file = StoredFile(path, error=InputError)
    try:
        return FeatureFile(_storage(path, file))
    except BaseException as error:
        file.close()
        if isinstance(error, FOREIGN_ERRORS) and not isinstance(error, InputError):
            raise unreadable(path, f"it is damaged ({error})") from None
        raise


def _storage(path: Path, file: StoredFile) -> Storage:
    from layertap.data.store import arrays
    from layertap.data.store.parquet import ParquetStorage

    head = bytes(file.read(0, min(LONGEST_MAGIC, file.size)))
    if head.startswith(b"PAR1"):
        return ParquetStorage(path, file)
    if head.startswith(b"PK\x03\x04"):
        return arrays.open_npz(path, file)
    if head.startswith(b"\x93NUMPY"):
        return arrays.open_npy(path, file)
    if head[8:] == b"{":
        return arrays.open_safetensors(path, file)
    if path.suffix.lower() in JSONL_SUFFIXES:
        raise unreadable(path, "JSONL has its records at no known places; read it line by line with json.loads")
    raise unreadable(path, "the file is empty" if not head else f"it begins with {head[:4]!r}, as none of them does")
