"""`Predictor`: an extractor with classification heads, which predicts and extracts in one pass."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from layertap.engine.extractor import Extractor
from layertap.engine.identity import Provenance
from layertap.engine.options import Semantics
from layertap.engine.progress import progress_on
from layertap.engine.streaming import ProgressCallback, Stream
from layertap.engine.texts import Text, as_records, check_iterable
from layertap.errors import OptionError, UsageError
from layertap.features.expr import Expr
from layertap.features.naming import Features, named
from layertap.features.parse import parse
from layertap.features.plan import Plan
from layertap.learn.heads.base import PredictionHead, check_feature, marks_entities, meaning_of_lists
from layertap.learn.heads.predictions import HeadPredictions, LabelSet, Prediction, TextPrediction
from layertap.records import Feature, FeatureBatch, FeatureSchema, Ragged, Record
from layertap.text.tokenizer import TextTokenizer
from layertap.text.units import UnitFinder

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = ".scores"
"""Ending of the name of the array of probabilities."""

ENTITIES = ".entities"
"""Ending of the name of the column of entities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextColumns:
    """Names of the columns in which predictions carry their texts; None leaves a column out.

    Attributes:
        text: name of the column of texts; given words are joined by spaces.
        words: name of the column of lists of words: given ones, or those that the heads tag.
        pair: name of the column of second texts.
    """

    text: str | None = None
    words: str | None = None
    pair: str | None = None

    @property
    def types(self) -> dict[str, bool]:
        """Mapping from the name of each column to whether it holds lists."""
        return {name: name == self.words for name in (self.text, self.pair, self.words) if name is not None}

    def of(self, record: Record, finder: UnitFinder) -> dict[str, Any]:
        """Return the columns of a record."""
        values: dict[str, Any] = {}
        if self.text is not None:
            values[self.text] = record.text
        if self.pair is not None:
            values[self.pair] = record.pair
        if self.words is not None:
            words = record.words
            if words is None:
                words = tuple(record.text[begin:end] for begin, end in finder.word_chars(record).tolist())
            values[self.words] = list(words)
        return values

    def without(self, taken: Collection[str]) -> TextColumns:
        """Return the columns without those whose names are taken."""
        left = {name: getattr(self, name) for name in ("text", "words", "pair")}
        return TextColumns(**{name: column for name, column in left.items() if column not in taken})


class Predictor:
    """Run any number of classification heads, and extract features, in a single pass over a stream of records.

    A predictor has the interface of an `Extractor` (`layertap.engine.streaming.Streams`). The results of a head stand
    beside the features, under these names:

    - With `columns`, records carry `<name>`: the label, the list of labels, or the list of tags, one per word (None
      for a word that has no token or was cut off). If the tags mark entities, records also carry `<name>.entities`:
      lists of begin, end, label, text and score.
    - The feature `<name>.scores` is float32 [C] per text, in the order of the labels of the head; for words it is
      float32, the probability of the tag of each word.
    - Without `columns`, for files that hold arrays only, the feature `<name>` is int32, the index of the label, or -1
      for a word without a tag. A head that gives any number of labels has no such feature.
    - A head that gives a number has the feature `<name>`, float32, and no other results.

    Args:
        extractor: the model.
        heads: at least one head; their names differ.
        columns: whether records may carry results.
        texts: names of columns for the texts of the records, or None; only with `columns`.

    Raises:
        OptionError: a head of another model or with other options, or two heads of one name.
        FeatureError: a feature of a head that the model does not have.
    """

    def __init__(
        self,
        extractor: Extractor,
        heads: Sequence[PredictionHead],
        *,
        columns: bool = True,
        texts: TextColumns | None = None,
    ) -> None:
        names = [head.name for head in heads]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError(f"two heads are called {twice!r}; rename one of them (--head other={twice})")
        for head in heads:
            head.check(extractor)
        self.extractor = extractor
        self.heads = tuple(heads)
        self._columns = columns
        self._texts = texts if columns and texts is not None else TextColumns()
        self._finder = UnitFinder(words=True, pattern=extractor.semantics.compiled_word_pattern())
        inputs = list(dict.fromkeys(head.feature for head in heads))
        self._inputs: dict[str, Expr] = {f"_head{i}": parse(text) for i, text in enumerate(inputs)}
        self._input_of = {head.name: f"_head{inputs.index(head.feature)}" for head in heads}
        plan = extractor.plan(self._inputs)
        for head in heads:
            schema = check_feature(plan, self._input_of[head.name], head.task)
            if schema.shape != head.vector_shape:
                raise OptionError(
                    f"head {head.name!r} has weights for vectors of shape {list(head.vector_shape)}, and its feature "
                    f"{head.feature} gives {list(schema.shape)}; the files of the head do not match: fit it again"
                )

    @property
    def tokenizer(self) -> TextTokenizer:
        """Tokenizer of the extractor."""
        return self.extractor.tokenizer

    @property
    def semantics(self) -> Semantics:
        """Options of the extractor that change the results."""
        return self.extractor.semantics

    def plan(self, features: Features | None = None) -> Plan:
        """Return the plan that computes the features asked for and those of the heads."""
        return self.extractor.plan(self._with_inputs(features))

    def schema(
        self, features: Features | None = None, *, details: bool | Sequence[str] = False
    ) -> tuple[FeatureSchema, ...]:
        """Return the name, dtype and shape of every array in the results, in output order.

        Raises:
            UsageError: a feature has the name of a result of a head.
        """
        requested = self._named(features)
        schemas = self.extractor.schema(self._with_inputs(features), details=details)
        extracted = [schema for schema in schemas if schema.name.removesuffix(".scale") not in self._inputs]
        predicted = [schema for head in self.heads for schema in self._schemas(head)]
        names = [*(schema.name for schema in predicted), *self.column_names]
        clash = [name for name in names if name in requested]
        if clash:
            raise UsageError(
                f"{clash[0]!r} is the name of a result of a head and of a feature; rename the feature (name = ...)"
            )
        return (*extracted, *predicted)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns that heads add to the records."""
        if not self._columns:
            return ()
        labelling = [head for head in self.heads if head.answer != "number"]
        return (
            *self._texts.types,
            *(head.name for head in labelling),
            *(head.name + ENTITIES for head in labelling if marks_entities(head)),
        )

    @property
    def column_types(self) -> dict[str, pa.DataType | None]:
        """Arrow types of the columns that heads add to the records."""
        import pyarrow as pa

        if not self._columns:
            return {}
        types: dict[str, pa.DataType | None] = {
            name: pa.list_(pa.string()) if is_list else pa.string() for name, is_list in self._texts.types.items()
        }
        for head in self.heads:
            if head.answer == "number":
                continue
            single = head.task == "text" and head.answer == "label"
            types[head.name] = pa.string() if single else pa.list_(pa.string())
            if marks_entities(head):
                fields = {"begin": pa.int32(), "end": pa.int32(), "label": pa.string(), "text": pa.string()}
                types[head.name + ENTITIES] = pa.list_(pa.struct({**fields, "score": pa.float32()}.items()))
        return types

    def provenance(self, features: Features | None = None) -> Provenance:
        """Return the provenance of the extractor, with the feature, labels and digest of each head under `heads`."""
        heads = {
            head.name: {
                "feature": head.feature,
                "labels": list(head.labels),
                "scheme": head.scheme,
                "answer": head.answer,
                "sha256": head.digest,
            }
            for head in self.heads
        }
        return self.extractor.provenance(self._with_inputs(features)).with_heads(heads, read_features=self._inputs)

    def stream(
        self,
        records: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Stream:
        """Predict, and compute features, for a stream of any length in bounded memory.

        Args:
            records: texts, as `Extractor.stream` takes them. Among texts for heads of texts, a list of two strings is
                a pair as for a cross-encoder, or is refused where it could be two words.
            features: features to compute beside the predictions; None stands for no features.
            details: details of tokens and words, as in `Extractor.stream`.
            on_progress: called after every packed batch, as in `Extractor.stream`.
        """
        stream = self.extractor.stream(
            self._records(records), self._with_inputs(features), details=details, on_progress=on_progress
        )
        return Stream(map(self._with_predictions, stream), stream.summary)

    def predict_arrays(
        self, records: Iterable[Text], on_progress: ProgressCallback | None = None
    ) -> Iterator[tuple[Sequence[Record], list[HeadPredictions]]]:
        """Yield records and the predictions of each head for them, a chunk at a time."""
        for batch in self.extractor.stream(self._records(records), self._inputs, on_progress=on_progress):
            yield batch.records, [self._predictions(head, batch) for head in self.heads]

    def predict(self, texts: Sequence[Text], *, progress: bool = False) -> Iterator[list[TextPrediction]]:
        """Yield the predictions of all heads for each text.

        Args:
            texts: N texts, as `Extractor.extract` takes them.
            progress: draw a progress bar on standard error.
        """
        with progress_on(sys.stderr, shown=progress, total=len(texts)) as on_progress:
            for records, chunk in self.predict_arrays(texts, on_progress):
                per_head = [
                    predictions.per_text(head, records, self._finder)
                    for head, predictions in zip(self.heads, chunk, strict=True)
                ]
                yield from map(list, zip(*per_head, strict=True))

    def _records(self, texts: Iterable[Text]) -> Iterator[Record]:
        check_iterable(texts)
        return as_records(texts, lists=meaning_of_lists(self.heads))

    def _named(self, features: Features | None) -> dict[str, Expr]:
        return {} if features is None else named(features, self.extractor.facts)

    def _with_inputs(self, features: Features | None) -> dict[str, Expr]:
        return self._named(features) | self._inputs

    def _predictions(self, head: PredictionHead, batch: FeatureBatch) -> HeadPredictions:
        return HeadPredictions.of(head, batch.features[self._input_of[head.name]])

    def _schemas(self, head: PredictionHead) -> list[FeatureSchema]:
        ragged = head.task == "words"
        if head.answer == "number":
            return [FeatureSchema(name=head.name, dtype="float32", shape=(), ragged=False)]
        scores = FeatureSchema(
            name=head.name + SCORES,
            dtype="float32",
            shape=() if ragged else (len(head.labels),),
            ragged=ragged,
            axes=("word",) if ragged else ("label",),
        )
        ids = FeatureSchema(name=head.name, dtype="int32", shape=(), ragged=ragged, axes=("word",) if ragged else ())
        return [scores] if self._columns or head.answer == "labels" else [ids, scores]

    def _with_predictions(self, batch: FeatureBatch) -> FeatureBatch:
        features = {name: value for name, value in batch.features.items() if name not in self._inputs}
        columns: list[dict[str, Any]] = [self._texts.of(record, self._finder) for record in batch.records]
        for head in self.heads:
            predictions = self._predictions(head, batch)
            features |= self._arrays(head, predictions)
            if self._columns and head.answer != "number":
                objects = predictions.per_text(head, batch.records, self._finder)
                for own, record, prediction in zip(columns, batch.records, objects, strict=True):
                    _refuse_clash(head, record)
                    own |= _columns_of(head, prediction)
        if not self._columns:
            return FeatureBatch(records=batch.records, features=features)
        records = [
            replace(record, columns={**record.columns, **own})
            for record, own in zip(batch.records, columns, strict=True)
        ]
        return FeatureBatch(records=records, features=features)

    def _arrays(self, head: PredictionHead, predictions: HeadPredictions) -> dict[str, Feature]:
        """Return the arrays of a head, with the names of `_schemas`."""
        if head.answer == "number":
            return {head.name: predictions.probabilities[:, 0]}
        offsets = predictions.offsets
        scores = predictions.probabilities if offsets is None else Ragged(predictions.scores, offsets)
        if self._columns or head.answer == "labels":
            return {head.name + SCORES: scores}
        ids = predictions.ids if offsets is None else Ragged(predictions.ids, offsets)
        return {head.name: ids, head.name + SCORES: scores}


def _refuse_clash(head: PredictionHead, record: Record) -> None:
    taken = [name for name in (head.name, head.name + ENTITIES) if name in record.columns]
    if taken:
        raise UsageError(
            f"{taken[0]!r} is the name of a head and of a column of the input; rename the head (--head name=FOLDER), "
            "or list the columns to carry (--columns) without that one"
        )


def _columns_of(head: PredictionHead, prediction: TextPrediction) -> dict[str, Any]:
    """Return the columns that a record carries from a head."""
    if isinstance(prediction, Prediction):
        return {head.name: prediction.label}
    if isinstance(prediction, LabelSet):
        return {head.name: list(prediction.labels)}
    columns: dict[str, Any] = {head.name: list(prediction.tags)}
    if marks_entities(head):
        columns[head.name + ENTITIES] = [
            {"begin": it.begin, "end": it.end, "label": it.label, "text": it.text, "score": it.score}
            for it in prediction.entities
        ]
    return columns
