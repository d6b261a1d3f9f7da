"""The carried columns of a row that came from Arrow, kept there so that nothing is lost on the way."""

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
        return _python(self.batch.column(position)[self.index])

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch.schema.names)

    def __len__(self) -> int:
        return len(self.batch.schema.names)

    def __repr__(self) -> str:
        return repr(dict(self))


def _python(scalar: Any) -> Any:
    import pyarrow as pa

    if getattr(scalar.type, "unit", None) == "ns" and scalar.is_valid:
        # datetime ends at microseconds
        return str(scalar.cast(pa.string()).as_py())
    try:
        return scalar.as_py()
    except ValueError:  # a date beyond the year 9999
        return str(scalar.cast(pa.string()).as_py())
