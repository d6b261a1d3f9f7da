"""Card of an encoder: what evaluators of sentence-transformers read from it and write into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class ModelCardData:
    """Results of evaluators, and a name of the vectors, under the names of sentence-transformers.

    Args:
        name_of_vectors: function that names the model, the feature and everything else that vectors depend on.

    Attributes:
        eval_results_dict: evaluator -> its metrics by name, for each evaluator that was called with the encoder.
    """

    def __init__(self, name_of_vectors: Callable[[], str]) -> None:
        self._name_of_vectors = name_of_vectors
        self.eval_results_dict: dict[Any, dict[str, Any]] = {}

    @property
    def base_model(self) -> str:
        """Name of the model, the feature, and a digest of everything that vectors depend on.

        `mine_hard_negatives` puts it into the names of the files in its cache, which other vectors must not share.
        """
        return self._name_of_vectors()

    def set_evaluation_metrics(
        self,
        evaluator: Any,
        metrics: Mapping[str, Any],
        epoch: int = 0,  # noqa: ARG002 - of a training run, which sentence-transformers logs
        step: int = 0,  # noqa: ARG002 - as above
    ) -> None:
        """Keep the metrics of an evaluator, which calls this."""
        self.eval_results_dict[evaluator] = dict(metrics)
