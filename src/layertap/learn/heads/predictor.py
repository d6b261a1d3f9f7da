"""Heads on a stream: any number of them, and features beside them, in one pass through the model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.engine.extractor import Extractor, Text
from layertap.engine.pipeline import ProgressCallback
from layertap.engine.progress import progress_on
from layertap.engine.units import UnitFinder
from layertap.errors import OptionError, UsageError
from layertap.features.expr import Expr
from layertap.features.naming import Features, named
from layertap.features.parse import parse
from layertap.features.plan import Plan
from layertap.learn.heads.checkpoint import Answer
from layertap.learn.heads.head import Float32, checked_schema
from layertap.learn.labels import Task
from layertap.learn.tags import Scheme, entities
from layertap.records import Feature, FeatureBatch, FeatureSchema, Ragged, Record
from layertap.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    import pyarrow as pa

    from layertap.engine.summary import RunSummary

Ids = npt.NDArray[np.int32]

SCORES = ".scores"
ENTITIES = ".entities"
LIKELY = 0.5
"""Of a head that gives any number of labels: those that are likelier than this."""


class Judge(Protocol):
    """What stands on a feature and says something of it: a `Head`, or a `CheckpointHead`, which say what these are."""

    @property
    def name(self) -> str:
        """What its results are called."""

    @property
    def task(self) -> Task:
        """What it gives a label."""

    @property
    def scheme(self) -> Scheme | None:
        """Of tags."""

    @property
    def answer(self) -> Answer:
        """What it gives."""

    @property
    def feature(self) -> str:
        """What it stands on."""

    @property
    def labels(self) -> tuple[str, ...]:
        """C of them."""

    @property
    def digest(self) -> str:
        """A hash of its weights."""

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of what it stands on, a text or a word."""

    def check(self, extractor: Extractor) -> None:
        """Refuses an extractor that does not fit it."""

    def probabilities(self, vectors: npt.NDArray[Any]) -> Float32:
        """float32 [N, C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a head says of a text.

    Attributes:
        label: the likeliest class.
        score: its probability.
        scores: class -> probability.
    """

    label: str
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """What a head that gives any number of labels says of a text.

    Attributes:
        labels: those with a probability above 0.5, in the head's order.
        scores: class -> probability.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A stretch of text that a head of scheme bio or io marks.

    Attributes:
        begin, end: characters of the text, `end` one past the last.
        label: its type.
        text: those characters.
        score: mean probability of its words' tags.
    """

    begin: int
    end: int
    label: str
    text: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """What a head says of a text's words.

    Attributes:
        tags: a word each.
        scores: their probabilities.
        words: characters [begin, end) of each word; of given words in the text that they make with a space between.
        entities: those that the tags mark.
    """

    tags: tuple[str, ...]
    scores: tuple[float, ...]
    words: tuple[tuple[int, int], ...]
    entities: tuple[Entity, ...]


Said: TypeAlias = Prediction | LabelSet | Tagging


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a head says of N consecutive records.

    Attributes:
        ids: int32 [N], or of M words; places in the head's labels of the likeliest.
        probabilities: float32 [N, C] or [M, C]; of a head that gives a number the numbers, [N, 1].
        offsets: int64 [N + 1], whose words are whose; None where the head is of texts.
    """

    ids: Ids
    probabilities: Float32
    offsets: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, head: Judge, feature: Feature) -> Judged:
        """Of the head's feature."""
        values = feature.values if isinstance(feature, Ragged) else feature
        assert isinstance(values, np.ndarray)
        probabilities = head.probabilities(values)
        ids = probabilities.argmax(axis=1).astype(np.int32)
        offsets = feature.offsets if isinstance(feature, Ragged) else None
        return cls(ids=ids, probabilities=probabilities, offsets=offsets)

    @property
    def scores(self) -> Float32:
        """float32 [N] or [M], the probability of each of `ids`."""
        found: Float32 = self.probabilities[np.arange(len(self.ids)), self.ids]
        return found


class Judgements(Iterator[FeatureBatch]):
    """Feature batches with what heads say of them; `summary` counts along."""

    def __init__(self, batches: Iterator[FeatureBatch], summary: RunSummary) -> None:
        self.summary = summary
        self._batches = batches

    def __next__(self) -> FeatureBatch:
        return next(self._batches)


class Predictor:
    """An extractor with heads on it: the same calls, and results named after the heads beside the features.

    A head gives, with columns, `<name>` (label, or list of tags) and, where tags mark entities, `<name>.entities`
    (lists of begin, end, label, text, score), which records carry; and in any case the feature `<name>.scores`:
    float32 [C] a text in the order of the head's labels, or float32 a word, the probability of its tag. Without
    columns, for files that hold only arrays, the feature `<name>` is int32, places in the head's labels. Of a head that
    gives any number of labels the column is a list of them, and there is no such feature; one that gives a number gives
    the feature `<name>`, float32, and nothing else.

    Args:
        extractor: the model.
        heads: at least one; their names differ.
        columns: whether records may carry results.

    Raises:
        OptionError: a head of another model or with other options; two of one name.
        FeatureError: a head's feature that the model does not have.
    """

    def __init__(self, extractor: Extractor, heads: Sequence[Judge], *, columns: bool = True) -> None:
        names = [head.name for head in heads]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError(f"two heads are called {twice!r}; name one otherwise (--head other={twice})")
        for head in heads:
            head.check(extractor)
        self.extractor = extractor
        self.heads = tuple(heads)
        self._columns = columns
        texts = list(dict.fromkeys(head.feature for head in heads))
        self._own: dict[str, Expr] = {f"_head{i}": parse(text) for i, text in enumerate(texts)}
        self._reads = {head.name: f"_head{texts.index(head.feature)}" for head in heads}
        plan = extractor.plan(self._own)
        for head in heads:
            schema = checked_schema(plan, self._reads[head.name], head.task)
            if schema.shape != head.vector_shape:
                raise OptionError(
                    f"head {head.name!r} has weights for vectors {list(head.vector_shape)}, and its feature "
                    f"{head.feature} gives {list(schema.shape)}; its files do not fit together: fit it anew"
                )

    @property
    def tokenizer(self) -> TextTokenizer:
        """The extractor's."""
        return self.extractor.tokenizer

    def plan(self, features: Features | None = None) -> Plan:
        """What runs: the features asked for, and those of the heads."""
        return self.extractor.plan(self._all(features))

    def schema(
        self, features: Features | None = None, *, details: bool | Sequence[str] = False
    ) -> tuple[FeatureSchema, ...]:
        """Name, dtype and shape of every result that is no column, in output order."""
        asked = self._asked(features)
        found = self.extractor.schema(self._all(features), details=details)
        given = [schema for schema in found if schema.name.removesuffix(".scale") not in self._own]
        own = [schema for head in self.heads for schema in self._schemas(head)]
        names = [*(schema.name for schema in own), *self.column_names]
        clash = [name for name in names if name in asked]
        if clash:
            raise UsageError(f"{clash[0]!r} is a result of a head and a feature; name one otherwise (name = ...)")
        return (*given, *own)

    @property
    def column_names(self) -> tuple[str, ...]:
        """What records carry from the heads."""
        if not self._columns:
            return ()
        named = [head for head in self.heads if head.answer != "number"]
        return (
            *(head.name for head in named),
            *(head.name + ENTITIES for head in named if _marks_entities(head)),
        )

    @property
    def column_types(self) -> dict[str, pa.DataType | None]:
        """Arrow types of what records carry from the heads."""
        import pyarrow as pa

        if not self._columns:
            return {}
        found: dict[str, pa.DataType | None] = {}
        for head in self.heads:
            if head.answer == "number":
                continue
            one = head.task == "text" and head.answer == "label"
            found[head.name] = pa.string() if one else pa.list_(pa.string())
            if _marks_entities(head):
                fields = {"begin": pa.int32(), "end": pa.int32(), "label": pa.string(), "text": pa.string()}
                found[head.name + ENTITIES] = pa.list_(pa.struct({**fields, "score": pa.float32()}.items()))
        return found

    def provenance(self, features: Features | None = None) -> dict[str, Any]:
        """As the extractor's, with the heads: name -> feature, labels, scheme and a hash of the weights."""
        stated = self.extractor.provenance(self._all(features))
        for key in ("features", "max_length", "prompt"):
            stated[key] = {name: value for name, value in stated[key].items() if name not in self._own}
        stated["heads"] = {
            head.name: {
                "feature": head.feature,
                "labels": list(head.labels),
                "scheme": head.scheme,
                "answer": head.answer,
                "sha256": head.digest,
            }
            for head in self.heads
        }
        return stated

    def stream(
        self,
        records: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Judgements:
        """Computes features, and what the heads say, of a stream of any length in bounded memory.

        Args:
            records, details, on_progress: as `Extractor.stream` has them.
            features: what is wanted beside; None: nothing.
        """
        stream = self.extractor.stream(records, self._all(features), details=details, on_progress=on_progress)
        return Judgements(map(self._judged, stream), stream.summary)

    def judge(
        self, records: Iterable[Text], on_progress: ProgressCallback | None = None
    ) -> Iterator[tuple[Sequence[Record], list[Judged]]]:
        """Records, and what each head says of them, a chunk at a time."""
        for batch in self.extractor.stream(records, self._own, on_progress=on_progress):
            yield batch.records, [Judged.of(head, batch.features[self._reads[head.name]]) for head in self.heads]

    def _asked(self, features: Features | None) -> dict[str, Expr]:
        return {} if features is None else named(features, self.extractor.facts)

    def _all(self, features: Features | None) -> dict[str, Expr]:
        return self._asked(features) | self._own

    def _schemas(self, head: Judge) -> list[FeatureSchema]:
        ragged = head.task == "words"
        if head.answer == "number":
            return [FeatureSchema(name=head.name, dtype="float32", shape=(), ragged=False)]
        scores = FeatureSchema(
            name=head.name + SCORES, dtype="float32", shape=() if ragged else (len(head.labels),), ragged=ragged
        )
        ids = FeatureSchema(name=head.name, dtype="int32", shape=(), ragged=ragged)
        return [scores] if self._columns or head.answer == "labels" else [ids, scores]

    def _judged(self, batch: FeatureBatch) -> FeatureBatch:
        features = {name: value for name, value in batch.features.items() if name not in self._own}
        columns: list[dict[str, Any]] = [{} for _ in batch.records]
        for head in self.heads:
            judged = Judged.of(head, batch.features[self._reads[head.name]])
            features |= self._arrays(head, judged)
            if self._columns and head.answer != "number":
                results: Sequence[Said] = said(head, batch.records, judged, self.extractor)
                for own, record, result in zip(columns, batch.records, results, strict=True):
                    self._put(own, head, record, result)
        if not self._columns:
            return FeatureBatch(records=batch.records, features=features)
        records = [
            replace(record, columns={**record.columns, **own})
            for record, own in zip(batch.records, columns, strict=True)
        ]
        return FeatureBatch(records=records, features=features)

    def _arrays(self, head: Judge, judged: Judged) -> dict[str, Feature]:
        """What files of arrays hold of a head, as `_schemas` has it."""
        if head.answer == "number":
            return {head.name: judged.probabilities[:, 0]}
        offsets = judged.offsets
        scores = judged.probabilities if offsets is None else Ragged(judged.scores, offsets)
        if self._columns or head.answer == "labels":
            return {head.name + SCORES: scores}
        return {head.name: judged.ids if offsets is None else Ragged(judged.ids, offsets), head.name + SCORES: scores}

    @staticmethod
    def _put(own: dict[str, Any], head: Judge, record: Record, found: Said) -> None:
        taken = [name for name in (head.name, head.name + ENTITIES) if name in record.columns]
        if taken:
            raise UsageError(
                f"{taken[0]!r} is the name of a head and of a column of the input; name the head otherwise (--head "
                "name=FOLDER), or name the columns to carry (--columns) without it"
            )
        if isinstance(found, Prediction):
            own[head.name] = found.label
            return
        if isinstance(found, LabelSet):
            own[head.name] = list(found.labels)
            return
        own[head.name] = list(found.tags)
        if _marks_entities(head):
            own[head.name + ENTITIES] = [
                {"begin": it.begin, "end": it.end, "label": it.label, "text": it.text, "score": it.score}
                for it in found.entities
            ]


def said(head: Judge, records: Sequence[Record], judged: Judged, extractor: Extractor) -> list[Said]:
    """A head's word on records, as objects; of one that gives a label or labels."""
    if judged.offsets is None:
        rows = judged.probabilities.tolist()
        scores = [dict(zip(head.labels, row, strict=True)) for row in rows]
        if head.answer == "labels":
            likely = [tuple(label for label, score in row.items() if score > LIKELY) for row in scores]
            return [LabelSet(labels=labels, scores=row) for labels, row in zip(likely, scores, strict=True)]
        return [
            Prediction(label=head.labels[i], score=row[i], scores=own)
            for i, row, own in zip(judged.ids.tolist(), rows, scores, strict=True)
        ]
    finder = UnitFinder(words=True, pattern=extractor.semantics.compiled_word_pattern())
    tags = [head.labels[i] for i in judged.ids.tolist()]
    of_words = judged.scores.tolist()
    found: list[Said] = []
    for record, (begin, end) in zip(records, pairwise(judged.offsets.tolist()), strict=True):
        words = tuple((first, last) for first, last in finder.word_chars(record).tolist())
        found.append(_tagging(head, record, words, tuple(tags[begin:end]), tuple(of_words[begin:end])))
    return found


def predictions(head: Judge, texts: Sequence[Text], extractor: Extractor, *, progress: bool) -> list[Said]:
    """A head's word on texts, as `said`."""
    predictor = Predictor(extractor, [head])
    found: list[Said] = []
    with progress_on(sys.stderr, shown=progress, total=len(texts)) as on_progress:
        for records, (judged,) in predictor.judge(texts, on_progress):
            found.extend(said(head, records, judged, extractor))
    return found


def _tagging(
    head: Judge, record: Record, words: tuple[tuple[int, int], ...], tags: tuple[str, ...], scores: tuple[float, ...]
) -> Tagging:
    marked: list[Entity] = []
    for first, last, label in entities(tags) if _marks_entities(head) else ():
        begin, end = words[first][0], words[last - 1][1]
        # A number of float32, as files hold it.
        score = float(np.float32(sum(scores[first:last]) / (last - first)))
        marked.append(Entity(begin=begin, end=end, label=label, text=record.text[begin:end], score=score))
    return Tagging(tags=tags, scores=scores, words=words, entities=tuple(marked))


def _marks_entities(head: Judge) -> bool:
    return head.scheme in ("bio", "io")
