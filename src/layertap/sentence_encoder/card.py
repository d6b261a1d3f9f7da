"""Card of an encoder: what evaluators of sentence-transformers read from it and write into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layertap.sentence_encoder.encoder import SentenceEncoder


class ModelCardData:
    """Results of evaluators, and a name of the vectors, under the names of sentence-transformers.

    Args:
        encoder: the encoder.

    Attributes:
        eval_results_dict: evaluator -> its metrics by name, for each evaluator that was called with the encoder.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self.eval_results_dict: dict[Any, dict[str, Any]] = {}

    @property
    def base_model(self) -> str:
        """Name of the model, the feature, and a digest of everything that vectors depend on.

        `mine_hard_negatives` puts it into the names of the files in its cache, which other vectors must not share.
        """
        name = self._encoder.extractor.provenance().model.name
        return f"{name} {self._encoder.feature} {digest_of(self._encoder)}"

    def set_evaluation_metrics(
        self,
        evaluator: Any,
        metrics: Mapping[str, Any],
        epoch: int = 0,  # noqa: ARG002 - of a training run, which sentence-transformers logs
        step: int = 0,  # noqa: ARG002 - as above
    ) -> None:
        """Keep the metrics of an evaluator, which calls this."""
        self.eval_results_dict[evaluator] = dict(metrics)


def digest_of(encoder: SentenceEncoder) -> str:
    """Return a digest of everything that the vectors of an encoder and their comparison depend on: 12 hex digits."""
    depends_on = [
        encoder.extractor.provenance(encoder.feature).digest,
        encoder.prompts,
        encoder.default_prompt_name,
        encoder.truncate_dim,
        encoder.similarity_fn_name,
    ]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
