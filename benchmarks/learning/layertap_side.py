"""The side of layertap on frozen features: an `Extractor` and the solver of ``layertap fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.learning.tasks import Part
from benchmarks.models import minilm_folder
from layertap import Extractor, Ragged
from layertap.learn.fitting.linear import FitResult, SolverOptions, TrainingData, fit_linear
from layertap.learn.fitting.mix import learn_mix

Vectors = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


class LayertapSide:
    """Side of layertap; implements `frozen.Side`."""

    def __init__(
        self,
        *,
        precision: Literal["float32", "bfloat16", "int8"] = "float32",
        backend: Literal["auto", "native"] = "auto",
        threads: int | None = None,
    ) -> None:
        self._extractor = Extractor.from_pretrained(
            minilm_folder(), precision=precision, backend=backend, threads=threads
        )

    def vectors(self, part: Part) -> Vectors:
        """Compute the vectors of all layers in one pass."""
        words = isinstance(part.items[0], list)
        vectors = self._extractor.extract(
            part.items, "hidden_states[:].words(mean)" if words else "hidden_states[:].mean"
        )
        rows = vectors.values if isinstance(vectors, Ragged) else vectors
        assert isinstance(rows, np.ndarray)
        return np.ascontiguousarray(np.moveaxis(rows, 1, 0))

    def fit_layer(self, vectors: Vectors, classes: Classes, num_classes: int) -> Callable[[Vectors], Classes]:
        """Fit a classifier on one layer to convergence."""
        fitted = fit_linear(_examples(vectors[None], classes), num_classes, SolverOptions())
        return lambda rows: _predict(fitted, rows)

    def fit_mix(
        self, vectors: Vectors, classes: Classes, num_classes: int, held: tuple[Vectors, Classes]
    ) -> tuple[Callable[[Vectors], Classes], dict[str, Any]]:
        """Fit a mix to convergence: the shares on the held-out part, the weights on the other one."""
        both = _examples(np.concatenate([vectors, held[0]], axis=1), np.concatenate([classes, held[1]]))
        apart = np.arange(len(both.classes)) >= len(classes)
        mix = learn_mix(both, None, num_classes, SolverOptions(), held_out=apart)
        fitted = fit_linear(mix.apply(_examples(vectors, classes)), num_classes, SolverOptions())
        facts = {"shares": [round(float(share), 4) for share in mix.shares]}
        return lambda rows: _predict(fitted, np.tensordot(mix.factors.astype(np.float32), rows, axes=1)), facts


def _examples(vectors: Vectors, classes: Classes) -> TrainingData:
    return TrainingData(vectors=vectors, classes=classes, weights=np.ones(len(classes)))


def _predict(fitted: FitResult, vectors: Vectors) -> Classes:
    weight, bias = fitted.parameters.for_classes()
    classes: Classes = (vectors @ weight.T + bias).argmax(axis=1)
    return classes
