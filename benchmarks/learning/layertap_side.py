"""Our side on frozen features: an `Extractor` and the solver of ``layertap fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.learning.tasks import Part
from benchmarks.models import minilm_folder
from layertap import Extractor, Ragged
from layertap.learn.linear import Examples, Fitted, Training, fit_linear

Vectors = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


class LayertapSide:
    """See `frozen.Side`."""

    def __init__(self) -> None:
        self._extractor = Extractor.from_pretrained(minilm_folder())

    def vectors(self, part: Part) -> Vectors:
        """All layers, in one pass."""
        words = isinstance(part.items[0], list)
        found = self._extractor.extract(
            part.items, "hidden_states[:].words(mean)" if words else "hidden_states[:].mean"
        )
        rows = found.values if isinstance(found, Ragged) else found
        assert isinstance(rows, np.ndarray)
        return np.ascontiguousarray(np.moveaxis(rows, 1, 0))

    def fit_layer(self, vectors: Vectors, classes: Classes, num_classes: int) -> Callable[[Vectors], Classes]:
        """To convergence."""
        fitted = fit_linear(_examples(vectors[None], classes), num_classes, Training(), mixed=False)
        return lambda rows: _predict(fitted, rows[None])

    def fit_mix(
        self, vectors: Vectors, classes: Classes, num_classes: int, held: tuple[Vectors, Classes]
    ) -> tuple[Callable[[Vectors], Classes], dict[str, Any]]:
        """Until the held-out part's loss falls no more."""
        fitted = fit_linear(
            _examples(vectors, classes), num_classes, Training(), mixed=True, validation=_examples(*held)
        )
        facts = {
            "shares": [round(float(share), 4) for share in fitted.parameters.shares],
            "iterations": fitted.iterations,
        }
        return lambda rows: _predict(fitted, rows), facts


def _examples(vectors: Vectors, classes: Classes) -> Examples:
    return Examples(vectors=vectors, classes=classes, weights=np.ones(len(classes)))


def _predict(fitted: Fitted, vectors: Vectors) -> Classes:
    weight, bias = fitted.parameters.for_classes()
    mix = (fitted.parameters.shares * fitted.parameters.scale).astype(np.float32)
    mixed = vectors[0] if len(vectors) == 1 else np.tensordot(mix, vectors, axes=1)
    classes: Classes = (mixed @ weight.T + bias).argmax(axis=1)
    return classes
