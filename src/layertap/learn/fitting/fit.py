"""Fit a `Head`: labels are checked first, vectors are extracted once, the head is fitted and measured."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity
from layertap.engine.options import Semantics
from layertap.engine.progress import clock, progress_on, status_on
from layertap.engine.texts import Text
from layertap.errors import InputError
from layertap.learn.arrays import BoolArray, Float32Array
from layertap.learn.fitting.buffers import MEMORY_BYTES, VectorBuffers, vector_buffers
from layertap.learn.fitting.linear import FitResult, OnIteration, SolverOptions, TrainingData, fit_linear
from layertap.learn.fitting.mix import LayerMix, learn_mix
from layertap.learn.fitting.task import ClassWeight, FitOptions, HeadTask, checked_task
from layertap.learn.heads.base import canonical, check_feature, default_feature
from layertap.learn.heads.head import Head
from layertap.learn.heads.predictions import labels_of_ids, seen_words
from layertap.learn.heads.predictor import Predictor
from layertap.learn.labelled import LabelledDataset
from layertap.learn.metrics import Scores, head_scores
from layertap.learn.splitting import dataset_units, draw_held_out
from layertap.records import FeatureSchema, Ragged
from layertap.text.units import UnitFinder
from layertap.words import counted

FEATURE = "v"

MIX_SHARE = 0.2
"""Share of the training examples that a mix is learned on, if there is no validation data."""


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
    """Fit a linear classifier on a feature of a frozen encoder, for texts or for their words.

    Args:
        texts: N texts, as `Extractor.extract` takes them.
        labels: N labels; or N lists of labels, one per word.
        feature: text of a feature with one vector per text or word, or with one per layer, of which a mix is learned
            (`hidden_states[:].mean`, `hidden_states[:].words(mean)`). None stands for the default feature of the
            extractor, and for `last_hidden_state.words(mean)` if words are labelled.
        extractor: the model; None opens the default one.
        name: name of the results of the head.
        validation: texts and labels for early stopping.
        validation_share: share of the training texts to hold out for early stopping instead.
        test: texts and labels to measure the head on; the scores are `Head.metrics["test"]`.
        scheme: tagging scheme: "bio", "io", "tags" (no entities), or "auto".
        class_weight: "balanced", or a mapping from label to weight.
        l2: strength of the L2 penalty, 1 / C of scikit-learn.
        patience: number of iterations without a lower validation loss after which the fit stops.
        max_iterations: maximum number of iterations.
        tolerance: the fit has converged if no component of the gradient of the mean loss is larger.
        seed: seed of the choice of held-out texts.
        memory_bytes: size of the vectors that are kept in memory; larger ones go to a temporary file.
        folder: folder for that file; None stands for that of the system.
        progress: draw progress bars on standard error.

    Raises:
        InputError: labels that nothing can be learned from, or that do not match the texts, their words or each other.
        UsageError: options out of range, or a feature that does not fit the labels.
    """
    options = FitOptions(
        name=name,
        feature=feature,
        scheme=scheme,
        class_weight=class_weight,
        validation_share=validation_share,
        solver=SolverOptions(l2=l2, max_iterations=max_iterations, tolerance=tolerance, patience=patience),
        seed=seed,
        memory_bytes=memory_bytes,
    )
    chosen = extractor or Extractor.from_pretrained()
    finder = word_finder(chosen.semantics)
    given = {"training data": (texts, labels), "validation data": validation, "test data": test}
    train, held, measured = (
        None if pair is None else LabelledDataset.of_texts(*pair, finder, source=source)
        for source, pair in given.items()
    )
    assert train is not None
    task = checked_task(train, held, measured, options)
    return fit_task(chosen, task, options, folder=None if folder is None else Path(folder), progress=progress)


def fit_task(
    extractor: Extractor, task: HeadTask, options: FitOptions, *, folder: Path | None = None, progress: bool = False
) -> Head:
    """Extract the vectors of checked datasets once, fit a head to them, and measure it.

    Args:
        extractor: the model.
        task: datasets and classes, from `checked_task`.
        options: options of the fit.
        folder: folder for vectors that memory does not hold; None stands for the temporary folder of the system.
        progress: draw progress bars on standard error.

    Raises:
        FeatureError: a feature that does not fit the labels.
        NonFiniteError: NaN or infinity in a vector.
    """
    feature, num_classes = canonical_feature(extractor, task, options), len(task.encoder.classes)
    schema = check_feature(extractor.plan({FEATURE: feature}), FEATURE, task.train.task)
    unit = "text" if task.train.task == "text" else "word"
    with vector_buffers(folder, options.memory_bytes) as buffers:
        extraction = _Extraction(
            extractor=extractor, feature=feature, schema=schema, buffers=buffers, task=task, show=progress
        )
        train, held = extraction.split("training", task.train, task.held_out)
        if task.validation is not None:
            held, _ = extraction.split("validation", task.validation, None)
        train, held = _weighted(train, held, options.class_weight, task.encoder.classes)
        mix, to_fit, validation = None, train, held
        with status_on(sys.stderr, shown=progress) as say:
            shown = partial(_shown, say, examples=f"{counted(len(train.classes), unit)}, {num_classes} classes")
            if len(schema.shape) == 2:
                mix = _mix(task, train, held, options, buffers, on_fit=shown)
                to_fit = mix.apply(train, buffers.allocate)
                validation = None if held is None else mix.apply(held, buffers.allocate)
            iteration = shown("the classifier")
            result = fit_linear(to_fit, num_classes, options.solver, validation=validation, on_iteration=iteration)
        head = _head(extractor, task, options, feature, result, mix, notes=[*task.notes, *extraction.notes])
        metrics: dict[str, Scores] = {}
        if held is not None:
            scheme = task.encoder.scheme
            metrics["validation"] = head_scores(scheme, _validation_labels(task), _predicted(head, held))
    if task.test is not None:
        metrics["test"] = measure(extractor, head, task.test, progress=progress)
    return replace(head, metrics=metrics)


def canonical_feature(extractor: Extractor, task: HeadTask, options: FitOptions) -> str:
    """Return the canonical text of the feature that the head takes as input."""
    text = options.feature or default_feature(task.train.task)
    if text is not None:
        return canonical(text)
    return str(next(iter(extractor.plan().features.values())))


def measure(extractor: Extractor, head: Head, dataset: LabelledDataset, *, progress: bool = False) -> Scores:
    """Measure a head on a labelled dataset; records are streamed, and only the predictions are kept."""
    predictor = Predictor(extractor, [head])
    with progress_on(sys.stderr, shown=progress, total=len(dataset)) as on_progress:
        chunks = predictor.predict_arrays(dataset.records, on_progress)
        ids = np.concatenate([predictions.ids for _, (predictions,) in chunks])
    return head_scores(head.scheme, dataset.labels.values, labels_of_ids(head, ids))


def word_finder(semantics: Semantics) -> UnitFinder:
    """Return a finder of words with the word pattern of an extractor."""
    return UnitFinder(words=True, pattern=semantics.compiled_word_pattern())


def _mix(
    task: HeadTask,
    train: TrainingData,
    held: TrainingData | None,
    options: FitOptions,
    buffers: VectorBuffers,
    *,
    on_fit: Callable[[str], OnIteration],
) -> LayerMix:
    """Learn the shares of the layers on the validation data, or on a part of the training texts.

    Raises:
        InputError: there is no validation data, and too few distinct texts or sentences to hold any out.
    """
    held_out = np.zeros(len(train.classes), dtype=bool)
    if held is None:
        units = dataset_units(task.train, task.encoder)
        held_out = np.isin(units.groups, draw_held_out(units, MIX_SHARE, options.seed, least=1))
        if not held_out.any() or len(np.unique(units.classes[~held_out])) < 2:
            raise InputError(
                f"{units.source}: {units.counted}: too few to hold any out, on which a "
                "mix of layers is learned; add examples, give validation data, or choose a feature of one layer"
            )
    return learn_mix(
        train,
        held,
        len(task.encoder.classes),
        options.solver,
        held_out=held_out,
        allocate=buffers.allocate,
        seed=options.seed,
        on_fit=on_fit,
    )


def _shown(say: Callable[[str], None], what: str, *, examples: str) -> OnIteration:
    """Show what is fitted next, and return the callback that shows its iterations."""
    began = time.perf_counter()
    say(f"fitting {what} to {examples}")

    def shown(iteration: int, loss: float) -> None:
        seconds = time.perf_counter() - began
        say(f"fitting {what} to {examples}: iteration {iteration}, loss {loss:.4f}, {clock(seconds)}")

    return shown


def _validation_labels(task: HeadTask) -> Sequence[tuple[str, ...]]:
    if task.validation is not None:
        return task.validation.labels.values
    assert task.held_out is not None
    return [labels for labels, out in zip(task.train.labels.values, task.held_out, strict=True) if out]


def _predicted(head: Head, data: TrainingData) -> list[str | None]:
    labels: list[str | None] = []
    for block in data.blocks():
        vectors = data.vectors[:, block]
        rows = vectors[0] if head.mix is None else np.moveaxis(vectors, 0, 1)
        ids = head.probabilities(rows).argmax(axis=1).astype(np.int32)
        if head.task == "words":
            ids[~seen_words(rows)] = -1
        labels.extend(labels_of_ids(head, ids))
    return labels


def _weighted(
    train: TrainingData, held: TrainingData | None, class_weight: ClassWeight, classes: Sequence[str]
) -> tuple[TrainingData, TrainingData | None]:
    """Weight each example by its class."""
    weights = np.ones(len(classes))
    if class_weight == "balanced":
        weights = len(train.classes) / (len(classes) * np.bincount(train.classes, minlength=len(classes)))
    elif isinstance(class_weight, Mapping):
        weights = np.array([float(class_weight.get(label, 1)) for label in classes])
    weighted = replace(train, weights=weights[train.classes])
    return weighted, None if held is None else replace(held, weights=weights[held.classes])


def _head(
    extractor: Extractor,
    task: HeadTask,
    options: FitOptions,
    feature: str,
    result: FitResult,
    mix: LayerMix | None,
    *,
    notes: list[str],
) -> Head:
    weight, bias = result.parameters.for_classes()
    stated = options.stated() | {
        "iterations": result.iterations,
        "ended": result.ended,
        "loss": result.loss,
        "validation_loss": result.validation_loss,
        "notes": notes,
        "records": len(task.train) - (0 if task.held_out is None else int(task.held_out.sum())),
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
        task=task.train.task,
        scheme=task.encoder.scheme,
        feature=feature,
        labels=task.encoder.classes,
        weight=weight,
        bias=bias,
        mix=None if mix is None else mix.factors.astype(np.float32),
        model=ModelIdentity.of(extractor.files),
        semantics=extractor.semantics,
        options=stated,
        metrics={},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Extraction:
    """Extraction of datasets into buffers."""

    extractor: Extractor
    feature: str
    schema: FeatureSchema
    buffers: VectorBuffers
    task: HeadTask
    show: bool
    notes: list[str] = field(default_factory=list)

    def split(
        self, role: str, dataset: LabelledDataset, held_out: BoolArray | None
    ) -> tuple[TrainingData, TrainingData | None]:
        """Extract a dataset, and return its examples and the held-out ones apart; each has the weight 1."""
        encoded = self.task.encoder.encode(dataset.labels)
        out = np.zeros(len(encoded), dtype=bool) if held_out is None else held_out
        out = np.repeat(out, [len(classes) for classes in encoded])
        classes = np.concatenate(encoded)
        *layers, width = self.schema.shape
        buffers = [
            self.buffers.allocate(layers[0] if layers else 1, int((out == side).sum()), width) for side in (False, True)
        ]
        self._fill(role, dataset, out, buffers)
        kept, held = (
            TrainingData(vectors=vectors, classes=classes[out == side], weights=np.ones(len(vectors[0])))
            for vectors, side in zip(buffers, (False, True), strict=True)
        )
        return kept, None if held_out is None else held

    def _fill(self, role: str, dataset: LabelledDataset, out: BoolArray, buffers: Sequence[Float32Array]) -> None:
        done, ends = 0, [0, 0]
        with progress_on(sys.stderr, shown=self.show, total=len(dataset)) as on_progress:
            stream = self.extractor.stream(dataset.records, {FEATURE: self.feature}, on_progress=on_progress)
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
                    buffers[side][:, ends[side] : ends[side] + chosen.shape[1]] = chosen
                    ends[side] += chosen.shape[1]
                done += len(rows)
        if done != len(out) or sum(ends) != len(out):
            raise InputError(f"{dataset.source} has changed since its labels were read; run again")
        self.notes.extend(f"{role}: {note}" for note in stream.summary.notes())
