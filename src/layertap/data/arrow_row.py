"""Carried columns of a row that came from Arrow, kept there so that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowRow(Mapping[str, Any]):
    """One row of a record batch as a mapping of Python values.

    Python has no place for some Arrow values (nanoseconds, dictionaries, extension types), so a Parquet
    output takes them from `batch` directly and only other readers convert.

    Attributes:
        batch: the carried columns of consecutive rows.
        index: which of them.
    """

    __slots__ = ("batch", "index")

    def __init__(self, batch: pa.RecordBatch, index: int) -> None:
        self.batch = batch
        self.index = index

    def __getitem__(self, name: str) -> Any:
        position = self.batch.schema.get_field_index(name)
        if position < 0:
            raise KeyError(name)
        try:
            return _python(self.batch.column(position)[self.index])
        except TypeError as error:
            raise TypeError(f"column {name!r} holds {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch.schema.names)

    def __len__(self) -> int:
        return len(self.batch.schema.names)

    def __repr__(self) -> str:
        return repr(dict(self))


def _python(scalar: Any) -> Any:
    """Convert an Arrow scalar, whether or not pandas (whose types pyarrow would use) is installed.

    Raises:
        TypeError: Python has no value for it.
    """
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if getattr(scalar.type, "unit", None) == "ns":
        return str(scalar.cast(pa.string()).as_py())  # datetime ends at microseconds
    if isinstance(scalar, pa.StructScalar):
        return {name: _python(value) for name, value in scalar.items()}
    if isinstance(scalar, pa.ListScalar):  # a map is a list of keys and values
        return [_python(value) for value in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise TypeError(f"a string that is not UTF-8: byte 0x{error.object[error.start]:02x}") from None
    except (ValueError, OverflowError) as error:  # a date beyond the year 9999
        if not hasattr(scalar, "value"):
            raise TypeError(f"a value of type {scalar.type} that Python does not hold: {error}") from None
        return scalar.value
