"""A stream of feature batches, and the interface of the objects that make one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from layertap.engine.identity import Provenance
from layertap.engine.options import Semantics
from layertap.engine.summary import RunSummary
from layertap.engine.texts import Text
from layertap.features.naming import Features
from layertap.features.plan import Plan
from layertap.records import FeatureBatch, FeatureSchema
from layertap.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import pyarrow as pa

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Callback of a run: called after every packed batch with the records finished by it and the tokens of its texts."""


class Stream(Iterator[FeatureBatch]):
    """Iterator over feature batches in input order, each computed when it is taken; for one thread at a time.

    Attributes:
        summary: counts of what has been done so far; they grow as batches are taken.
    """

    def __init__(self, batches: Iterator[FeatureBatch], summary: RunSummary) -> None:
        self.summary = summary
        self._batches = batches

    def __next__(self) -> FeatureBatch:
        return next(self._batches)


class Streams(Protocol):
    """Interface of objects that turn records into named results: an `Extractor`, or a `Predictor` on top of one."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Tokenizer of the model."""

    @property
    def semantics(self) -> Semantics:
        """Options that change the results."""

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the columns that results add to the records; None stands for JSON text."""

    def plan(self, features: Features | None = None) -> Plan:
        """Return the plan that computes these features, or refuse features that the model does not have."""

    def schema(
        self, features: Features | None = None, *, details: bool | Sequence[str] = False
    ) -> tuple[FeatureSchema, ...]:
        """Return the name, dtype and shape of every array in the results, in output order."""

    def provenance(self, features: Features | None = None) -> Provenance:
        """Return everything that the results depend on, as written to the files that hold them."""

    def stream(
        self,
        records: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Stream:
        """Compute results of a stream of records of any length in bounded memory."""
