"""How good predictions are, in the words of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.learn.fitting.fit import head_scores
from layertap.learn.tags import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What predictions are measured by.

    Attributes:
        names: the labels, in the order of the model's outputs.
        scheme: of tags, or None: labels are of texts.
    """

    names: tuple[str, ...]
    scheme: Scheme | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What there is a score of."""
        return ("accuracy", "macro_f1", "mcc", *(("entity_f1",) if self.scheme in ("bio", "io") else ()))

    def scores(self, gold: Sequence[tuple[str, ...]], predicted: Sequence[int]) -> dict[str, float]:
        """Metric -> score.

        Args:
            gold: N tuples, of one label each where labels are of texts.
            predicted: places in `names`, laid end to end.
        """
        found = head_scores(self.scheme, gold, [self.names[i] for i in predicted])
        if "entities" in found:
            found["entity_f1"] = found["entities"]["f1"]
        return {name: found[name] for name in self.metrics}
