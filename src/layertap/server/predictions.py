"""Predictions of heads for the texts of a request, whatever the dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layertap.errors import NonFiniteError
from layertap.features.vectors import activate
from layertap.learn.arrays import Float32Array
from layertap.learn.heads.predictions import HeadPredictions, TextPrediction
from layertap.records import Array, Feature, Ragged, Record
from layertap.server.model import ServedHead, TextOptions
from layertap.server.state import Call
from layertap.text.units import UnitFinder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadInputs:
    """Feature of a head for N texts.

    Attributes:
        served: the head.
        records: the texts.
        feature: the feature, dense or one vector per word.
    """

    served: ServedHead
    records: Sequence[Record]
    feature: Feature

    @property
    def scores(self) -> Float32Array:
        """Scores of N texts, float32 [N, C]: probabilities; the sigmoid of the number of a cross-encoder."""
        numbers = self._checked(self.served.head.probabilities(self._vectors))
        return activate(numbers, "sigmoid") if self.served.head.answer == "number" else numbers

    @property
    def logits(self) -> Float32Array:
        """Logits of N texts, float32 [N, C]."""
        return self._checked(self.served.head.logits(self._vectors))

    def predictions(self) -> HeadPredictions:
        """Return the predictions as arrays."""
        predictions = HeadPredictions.of(self.served.head, self.feature)
        self._checked(predictions.probabilities)
        return predictions

    def per_text(self) -> list[TextPrediction]:
        """Return one prediction per text; the head gives labels or tags, not a number."""
        finder = UnitFinder(words=True, pattern=self.served.extractor.semantics.compiled_word_pattern())
        return self.predictions().per_text(self.served.head, self.records, finder)

    def _checked(self, values: Float32Array) -> Float32Array:
        """Return scores [N, C] or [M, C] that are finite.

        Raises:
            NonFiniteError: a head gives NaN or infinity for finite vectors.
        """
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            if isinstance(self.feature, Ragged):
                wrong = np.unique(np.searchsorted(self.feature.offsets, wrong, side="right") - 1)
            name = self.served.head.name
            raise NonFiniteError(f"head {name!r} gives NaN or infinity", what=name, rows=tuple(wrong.tolist()))
        return values

    @property
    def _vectors(self) -> Array:
        values = self.feature.values if isinstance(self.feature, Ragged) else self.feature
        assert isinstance(values, np.ndarray)
        return values


async def run_heads(
    call: Call, heads: Sequence[ServedHead], records: Sequence[Record], options: TextOptions | None = None
) -> list[HeadInputs]:
    """Compute the features of heads; heads that run with the same options share one pass.

    Raises:
        Refusal, LayertapError: as `Call.compute`.
    """
    results: dict[int, HeadInputs] = {}
    groups: dict[int, list[int]] = {}
    for number, served in enumerate(heads):
        owner = next((own for own in groups if heads[own].extractor.semantics == served.extractor.semantics), number)
        groups.setdefault(owner, []).append(number)
    for owner, members in groups.items():
        names = {f"h{number}": heads[number].feature for number in members}
        run = call.state.model.run_of(names, options=options, extractor=heads[owner].extractor)
        computed = await call.compute(run, records)
        for number in members:
            results[number] = HeadInputs(served=heads[number], records=records, feature=computed[f"h{number}"])
    return [results[number] for number in range(len(heads))]
