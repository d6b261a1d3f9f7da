"""Compares what was saved with the feature that it was saved from, on texts of many kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.engine.extractor import Extractor
from layertap.errors import OutputError
from layertap.verify.measure import Difference
from layertap.verify.texts import built_in_texts

Vectors = npt.NDArray[np.float32]

LONGEST = 1024
"""Tokens of the longest text to compare on, where the model takes more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How far what was saved is from its feature.

    Attributes:
        texts: number of texts that were compared.
        same_bits: every number is the same.
        error: largest |error| over the RMS of the feature's values.
        cosine: smallest cosine of a text's two vectors.
        bound: largest error with which it is saved.
    """

    texts: int
    same_bits: bool
    error: float
    cosine: float
    bound: float

    @classmethod
    def of(cls, saved: Vectors, expected: Vectors, *, bound: float) -> Certificate:
        """Compare vectors of N texts, [N, D] both."""
        difference = Difference.of(saved, expected)
        return cls(
            texts=len(expected),
            same_bits=bool(np.array_equal(saved, expected)),
            error=difference.error_over_rms,
            cosine=difference.cosine,
            bound=bound,
        )

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound."""
        return self.error <= self.bound

    def values(self) -> Mapping[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)

    def require(self, what: str) -> None:
        """Refuse what differs by more than the bound.

        Raises:
            OutputError: it does; the message has the figures.
        """
        if not self.passed:
            raise OutputError(
                f"{what} was not saved: on {self.texts} texts it differs from the feature by {self.error:.1e} of the "
                f"RMS (cosine {self.cosine:.6f}), and {self.bound:.0e} is allowed"
            )

    def __str__(self) -> str:
        if self.same_bits:
            return f"the same bits on {self.texts} texts"
        return f"error at most {self.error:.1e} of the RMS, cosine at least {self.cosine:.6f}, on {self.texts} texts"


def sample_texts(extractor: Extractor, max_length: int) -> list[str]:
    """Return texts to compare on: in many languages, empty, and longer than a limit in tokens."""

    def count(text: str) -> int:
        return len(extractor.tokenizer.encode([text])[0])

    return built_in_texts(count, min(max_length, LONGEST))
