"""Callable for Ray Data: features as columns of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.options import ExtractorOptions, split_options
from layertap.errors import InputError, OptionError
from layertap.features.expr import Expr
from layertap.features.naming import Features
from layertap.records import Ragged


class ExtractFeatures:
    """Add features of the texts of each batch to a Ray data set.

    Pass the class to `Dataset.map_batches`, which makes one object, with a model, for each of its workers:

        texts.map_batches(
            ExtractFeatures,
            fn_constructor_kwargs={"features": "v = hidden_states[4].mean"},
            compute=ray.data.ActorPoolStrategy(size=4),
            batch_size=1024,
        )

    A batch is a mapping of columns to numpy arrays [N, ...], the default format of Ray Data. Dense features become
    float32 columns [N, ...] unless `astype` says otherwise; features per token, word or span become columns of arrays
    of different lengths.

    Args:
        features: features as in `Extractor.extract`.
        model: a folder, a Hugging Face hub id, or None for all-MiniLM-L6-v2.
        text_column: column with the texts.
        pair_column: column with second texts, or None.
        **options: keywords of `Extractor.from_pretrained`.

    Raises:
        UsageError: features or options that cannot be.
    """

    def __init__(
        self,
        features: Features | None = None,
        *,
        model: str | os.PathLike[str] | None = None,
        text_column: str = "text",
        pair_column: str | None = None,
        **options: Unpack[ExtractorOptions],
    ) -> None:
        split_options(model, options)
        self._extractor = Extractor.from_pretrained(model, **options)
        planned = self._extractor.plan(features).features
        self._names = planned.keys()
        # as a list or mapping, also where there is one feature: results then come by name
        default = list(planned.values()) if features is None else features
        self._features: Features = [default] if isinstance(default, str | Expr) else default
        self._columns = [text_column] if pair_column is None else [text_column, pair_column]

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a batch and the features of its texts.

        Raises:
            InputError: the batch has no column of this name, or a value in it is not a text.
            OptionError: a feature has the name of a column of the batch.
        """
        for column in self._columns:
            if column not in batch:
                raise InputError(f"the batch has no column {column!r}; it has {', '.join(map(repr, batch))}")
        taken = sorted(self._names & batch.keys())
        if taken:
            raise OptionError(f"{taken[0]!r} is the name of a feature and of a column; rename the feature")
        parts = [list(batch[column]) for column in self._columns]
        texts = parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
        results = self._extractor.extract(texts, self._features)
        assert isinstance(results, dict)
        return {**batch, **{name: _column(value) for name, value in results.items()}}


def _column(value: Any) -> Any:
    if not isinstance(value, Ragged):
        return value
    column = np.empty(len(value), dtype=object)
    for i, array in enumerate(value):
        column[i] = array
    return column
