"""From labelled records to a `Head`: checked first, extracted once, fitted, measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity
from layertap.engine.progress import progress_on
from layertap.engine.texts import Text, as_records
from layertap.errors import InputError, UsageError
from layertap.learn.fitting.buffers import MEMORY_BYTES, VectorSpace, vector_space
from layertap.learn.fitting.linear import Examples, Fitted, Float32, Training, fit_linear
from layertap.learn.fitting.mix import Mix, learnt_mix
from layertap.learn.fitting.task import Bools, ClassWeight, FitOptions, Task, checked_task, drawn_apart
from layertap.learn.heads.base import canonical, check_feature, default_feature
from layertap.learn.heads.head import Head
from layertap.learn.heads.predictor import Predictor
from layertap.learn.labels import Part
from layertap.learn.metrics import Scores, class_scores, entity_scores
from layertap.learn.tags import Scheme, in_scheme
from layertap.records import FeatureSchema, Ragged, Record
from layertap.text.units import UnitFinder

FEATURE = "v"
LABEL = "label"

APART = 0.2
"""Share of the training examples that a mix is learnt on, where there is no validation part."""


def fit_task(
    extractor: Extractor, task: Task, options: FitOptions, *, folder: Path | None = None, progress: bool = False
) -> Head:
    """Extracts the vectors of checked parts once, fits a head to them, and measures it.

    Args:
        extractor: the model.
        task: from `checked_task`.
        options: how.
        folder: where vectors are kept that memory does not take; None: where the system keeps temporary files.
        progress: draw progress bars on standard error.

    Raises:
        FeatureError: a feature that does not fit the labels.
        NonFiniteError: NaN or infinity in a vector.
    """
    feature = canonical_feature(extractor, task, options)
    plan = extractor.plan({FEATURE: feature})
    schema = check_feature(plan, FEATURE, task.train.labels.task)
    with vector_space(folder, options.memory_bytes) as space:
        gather = _Gathering(extractor=extractor, feature=feature, schema=schema, space=space, task=task, show=progress)
        train, held = gather.split("training", task.train, task.held_out)
        if task.validation is not None:
            held, _ = gather.split("validation", task.validation, None)
        train, held = _weighted(train, held, options.class_weight, task.classes)
        mix, basis, validation = None, train, held
        if len(schema.shape) == 2:
            mix = _mix(task, train, held, options, space)
            basis, validation = mix.of(train, space.room), None if held is None else mix.of(held, space.room)
        fitted = fit_linear(basis, len(task.classes), options.training, validation=validation)
        head = _head(extractor, task, options, feature, fitted, mix, notes=gather.notes)
        metrics: dict[str, Scores] = {}
        if held is not None:
            metrics["validation"] = head_scores(task.scheme, _validation_labels(task), _classes_of(head, held))
    if task.test is not None:
        metrics["test"] = measure(extractor, head, task.test, progress=progress)
    return replace(head, metrics=metrics)


def _mix(task: Task, train: Examples, held: Examples | None, options: FitOptions, space: VectorSpace) -> Mix:
    """What each layer counts, learnt on the validation part, or on a part of the training examples."""
    learnt = task.learnt(task.train.labels)
    apart = np.zeros(len(train.classes), dtype=bool)
    if held is None:
        chosen = drawn_apart(learnt, APART, options.seed, least=1)
        apart = np.repeat(chosen, [len(labels) for labels in learnt.values])
        if not apart.any():  # the words of one text
            apart[:: round(1 / APART)] = True
    return learnt_mix(train, held, len(task.classes), options.training, apart=apart, room=space.room, seed=options.seed)


def canonical_feature(extractor: Extractor, task: Task, options: FitOptions) -> str:
    """The feature that the head will stand on."""
    text = options.feature or default_feature(task.train.labels.task)
    if text is not None:
        return canonical(text)
    return str(next(iter(extractor.plan().features.values())))


def measure(extractor: Extractor, head: Head, part: Part, *, progress: bool = False) -> Scores:
    """How good a head is on labelled records: streamed, nothing but the predictions is kept."""
    predictor = Predictor(extractor, [head])
    ids: list[npt.NDArray[np.int32]] = []
    with progress_on(sys.stderr, shown=progress, total=len(part.labels.values)) as on_progress:
        ids.extend(predictions.ids for _, (predictions,) in predictor.predict_arrays(part.records, on_progress))
    found = [head.labels[i] for i in np.concatenate(ids).tolist()]
    values = part.labels.values
    return head_scores(head.scheme, values, found)


def head_scores(scheme: Scheme | None, gold: Sequence[tuple[str, ...]], predicted: Sequence[str]) -> Scores:
    """The metrics of a head.

    Args:
        scheme: the head's.
        gold: N tuples, of one label each where the head is of texts.
        predicted: laid end to end.
    """
    learnt = [label if scheme is None else in_scheme(label, scheme) for labels in gold for label in labels]
    scores = class_scores(learnt, predicted)
    if scheme in ("bio", "io"):
        left = iter(predicted)
        scores["entities"] = entity_scores(gold, [[next(left) for _ in labels] for labels in gold])
    return scores


def _validation_labels(task: Task) -> Sequence[tuple[str, ...]]:
    if task.validation is not None:
        return task.validation.labels.values
    assert task.held_out is not None
    return [labels for labels, out in zip(task.train.labels.values, task.held_out, strict=True) if out]


def _classes_of(head: Head, examples: Examples) -> list[str]:
    found: list[str] = []
    for block in examples.blocks():
        vectors = examples.vectors[:, block]
        rows = vectors[0] if head.mix is None else np.moveaxis(vectors, 0, 1)
        found.extend(head.labels[i] for i in head.probabilities(rows).argmax(axis=1).tolist())
    return found


def _weighted(
    train: Examples, held: Examples | None, asked: ClassWeight, classes: Sequence[str]
) -> tuple[Examples, Examples | None]:
    """The same, each example counting what its class does."""
    each = np.ones(len(classes))
    if asked == "balanced":
        each = len(train.classes) / (len(classes) * np.bincount(train.classes, minlength=len(classes)))
    elif isinstance(asked, Mapping):
        each = np.array([float(asked.get(label, 1)) for label in classes])
    weighted = replace(train, weights=each[train.classes])
    return weighted, None if held is None else replace(held, weights=each[held.classes])


def _head(
    extractor: Extractor,
    task: Task,
    options: FitOptions,
    feature: str,
    fitted: Fitted,
    mix: Mix | None,
    *,
    notes: list[str],
) -> Head:
    weight, bias = fitted.parameters.for_classes()
    stated = options.stated() | {
        "iterations": fitted.iterations,
        "ended": fitted.ended,
        "loss": fitted.loss,
        "validation_loss": fitted.validation_loss,
        "notes": notes,
        "records": len(task.train.labels.values) - (0 if task.held_out is None else int(task.held_out.sum())),
    }
    if mix is not None:
        stated |= {
            "layer_shares": mix.shares.tolist(),
            "layer_losses": mix.losses.tolist(),
            "mix_loss": mix.loss,
            "sharpness": mix.sharpness,
        }
    return Head(
        name=options.name,
        task=task.train.labels.task,
        scheme=task.scheme,
        feature=feature,
        labels=task.classes,
        weight=weight,
        bias=bias,
        mix=None if mix is None else mix.factors.astype(np.float32),
        model=ModelIdentity.of(extractor.files),
        semantics=extractor.semantics,
        options=stated,
        metrics={},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Gathering:
    """Extracts parts into arrays."""

    extractor: Extractor
    feature: str
    schema: FeatureSchema
    space: VectorSpace
    task: Task
    show: bool
    notes: list[str] = field(default_factory=list)

    def split(self, role: str, part: Part, held_out: Bools | None) -> tuple[Examples, Examples | None]:
        """The examples of a part, and apart from them those held out; each counts 1."""
        values = self.task.learnt(part.labels).values
        sizes = np.array([len(labels) for labels in values])
        out = np.repeat(np.zeros(len(values), dtype=bool) if held_out is None else held_out, sizes)
        place = {label: i for i, label in enumerate(self.task.classes)}
        classes = np.array([place[label] for labels in values for label in labels], dtype=np.int64)
        *layers, width = self.schema.shape
        stores = [
            self.space.room(layers[0] if layers else 1, int((out == side).sum()), width) for side in (False, True)
        ]
        self._fill(role, part, out, stores)
        kept, held = (
            Examples(vectors=store, classes=classes[out == side], weights=np.ones(len(store[0])))
            for store, side in zip(stores, (False, True), strict=True)
        )
        return kept, None if held_out is None else held

    def _fill(self, role: str, part: Part, out: Bools, stores: Sequence[Float32]) -> None:
        done, ends = 0, [0, 0]
        total = len(part.labels.values)
        with progress_on(sys.stderr, shown=self.show, total=total) as on_progress:
            stream = self.extractor.stream(part.records, {FEATURE: self.feature}, on_progress=on_progress)
            for batch in stream:
                feature = batch.features[FEATURE]
                rows = feature.values if isinstance(feature, Ragged) else feature
                assert isinstance(rows, np.ndarray)
                if done + len(rows) > len(out):
                    break
                vectors = np.moveaxis(rows, 1, 0) if rows.ndim == 3 else rows[None]
                sides = out[done : done + len(rows)]
                for side in (0, 1):
                    chosen = vectors[:, sides == bool(side)]
                    stores[side][:, ends[side] : ends[side] + chosen.shape[1]] = chosen
                    ends[side] += chosen.shape[1]
                done += len(rows)
        if done != len(out) or sum(ends) != len(out):
            raise InputError(f"{part.labels.source} has changed since its labels were read; run again")
        self.notes.extend(f"{role}: {note}" for note in stream.summary.notes())


def fit_head(
    texts: Sequence[Text],
    labels: Sequence[Any],
    feature: str | None = None,
    *,
    extractor: Extractor | None = None,
    name: str = "head",
    validation: tuple[Sequence[Text], Sequence[Any]] | None = None,
    validation_share: float | None = None,
    test: tuple[Sequence[Text], Sequence[Any]] | None = None,
    scheme: str = "auto",
    class_weight: ClassWeight = None,
    l2: float = 1.0,
    patience: int = 10,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Head:
    """Fits a linear classifier on a frozen feature of texts, or of their words.

    Args:
        texts: as `Extractor.extract` takes them.
        labels: one a text; or for each text a list, one a word.
        feature: with one vector a text or a word, or one a layer, of which a mix is learnt then
            (`hidden_states[:].mean`, `hidden_states[:].words(mean)`). None: for texts the extractor's default, for
            words `last_hidden_state.words(mean)`.
        extractor: the model; None: the default one.
        name: what the head's results are called.
        validation: texts and labels for early stopping.
        validation_share: or the share of the training texts to hold out for it.
        test: texts and labels to measure on: `Head.metrics["test"]`.
        scheme: of tags: "bio", "io", "tags" (no entities), or "auto".
        class_weight: "balanced", or label -> weight.
        l2: how strongly weights are held back, 1 / C of scikit-learn.
        patience: iterations without a lower validation loss after which the fit ends.
        max_iterations, tolerance: where the fit ends at the latest, and where it has converged.
        seed: of the choice of held-out texts.
        memory_bytes: vectors beyond it are kept in a temporary file, in `folder`.
        folder: for that file; None: where the system keeps temporary files.
        progress: draw progress bars on standard error.

    Raises:
        InputError: labels that nothing can be learnt from, or that do not fit each other or the words.
        UsageError: options out of range; a feature that does not fit the labels.
    """
    options = FitOptions(
        name=name,
        feature=feature,
        scheme=scheme,
        class_weight=class_weight,
        validation_share=validation_share,
        training=Training(l2=l2, max_iterations=max_iterations, tolerance=tolerance, patience=patience),
        seed=seed,
        memory_bytes=memory_bytes,
    )
    chosen = extractor or Extractor.from_pretrained()
    train = part_of(texts, labels, "the training part", chosen)
    held = None if validation is None else part_of(*validation, "the validation part", chosen)
    measured = None if test is None else part_of(*test, "the test part", chosen)
    task = checked_task(train, held, measured, options)
    return fit_task(chosen, task, options, folder=None if folder is None else Path(folder), progress=progress)


def part_of(texts: Sequence[Text], labels: Sequence[Any], source: str, extractor: Extractor) -> Part:
    """Labelled texts of this process.

    Raises:
        UsageError: more or fewer labels than texts.
    """
    as_list = getattr(labels, "tolist", None)  # arrays and Series: their items are no str and int before
    given = as_list() if callable(as_list) else list(labels)
    if isinstance(texts, str) or len(texts) != len(given):
        count = "one text" if isinstance(texts, str) else f"{len(texts)} texts"
        raise UsageError(f"{source}: {count} and {len(given)} labels; give a list of texts, and a label for each")
    records = [
        replace(record, columns={LABEL: list(label) if isinstance(label, tuple) else label})
        for record, label in zip(as_records(texts), given, strict=True)
    ]
    return Part.held(records, LABEL, source=source, count_words=counter(extractor.semantics))


def counter(semantics: Any) -> Callable[[Record], int]:
    """What counts the words of a record."""
    finder = UnitFinder(words=True, pattern=semantics.compiled_word_pattern())
    return lambda record: len(finder.word_chars(record))
