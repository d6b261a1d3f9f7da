"""What a verification found: figures, bounds and verdicts, as data and as JSON.

Nothing in it depends on when or where it was made, so that the same files give the same certificate.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from layertap.verify.measure import HALF_COSINE, HIGH_FACTOR, INT8_COSINE, OWN_ERROR_FACTOR, Difference

FORMAT = 1
"""Number of the JSON layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way to run a model.

    Attributes:
        backend: by its name.
        device: "cpu" or "cuda:N".
        precision: "float32", "float32-high", "bfloat16", "float16" or "int8".
    """

    backend: str
    device: str
    precision: str

    @property
    def own_precision(self) -> str:
        """The nearest that transformers has."""
        return {"float32-high": "float32", "int8": "bfloat16"}.get(self.precision, self.precision)

    @property
    def same_bits(self) -> bool:
        """A text has the same bits in every batch: the native backend's promise."""
        return self.backend == "native"

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}, {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How far one output is from what it should be.

    Attributes:
        error_over_rms: largest |error| over RMS, infinity where something is not finite.
        cosine: smallest cosine of two rows.
    """

    error_over_rms: float
    cosine: float

    @classmethod
    def of(cls, difference: Difference) -> Finding:
        """The figures of a difference, rounded as the certificate has them."""
        error = difference.error_over_rms
        return cls(
            error_over_rms=float(f"{error:.3g}") if math.isfinite(error) else math.inf,
            cosine=round(difference.cosine, 9),
        )

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: null."""
        finite = math.isfinite(self.error_over_rms)
        return {"error_over_rms": self.error_over_rms if finite else None, "cosine": self.cosine}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One hidden state, or the pooler's output.

    Attributes:
        name: "hidden_states[i]", "hidden_states[L].unnormed" or "pooler_output".
        found: layertap against transformers in float64.
        own: transformers in the same precision, or the nearest it has, against itself in float64.
    """

    name: str
    found: Finding
    own: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupResult:
    """What one way to run the model gave.

    Attributes:
        setup: which.
        instruction_set: of the backend's kernels.
        outputs: states in order, the last one before the final norm where there is such a norm, then the pooler's
            output where it can be compared.
        alone: all outputs of texts run one at a time, against the same texts packed together.
        shuffled: the same in another order and other batches, against packed together.
        base_bound: the bound on errors in float32 for the model's depth.
    """

    setup: Setup
    instruction_set: str
    outputs: tuple[Output, ...]
    alone: Finding
    shuffled: Finding
    base_bound: float

    @property
    def is_exact(self) -> bool:
        """The bound is on errors; below float32 it is on cosines."""
        return self.setup.own_precision == "float32"

    @property
    def bound(self) -> float:
        """Largest error over RMS in float32 and float32-high, or smallest cosine in other precisions."""
        if not self.is_exact:
            return INT8_COSINE if self.setup.precision == "int8" else HALF_COSINE
        own = max((output.own.error_over_rms for output in self.outputs), default=0.0)
        # An oracle that is not finite itself allows nothing.
        bound = max(self.base_bound, OWN_ERROR_FACTOR * own) if math.isfinite(own) else self.base_bound
        return bound * HIGH_FACTOR if self.setup.precision == "float32-high" else bound

    def allows(self, finding: Finding) -> bool:
        """Whether figures of an output are within the bound."""
        if self.is_exact:
            return finding.error_over_rms <= self.bound
        return math.isfinite(finding.error_over_rms) and finding.cosine >= self.bound

    def allows_apart(self, finding: Finding) -> bool:
        """Whether a text may differ so much from itself in another batch."""
        return finding.error_over_rms == 0 if self.setup.same_bits else self.allows(finding)

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the figures beyond the bound: of outputs, "alone" and "shuffled"."""
        found = [output.name for output in self.outputs if not self.allows(output.found)]
        apart = {"alone": self.alone, "shuffled": self.shuffled}
        return (*found, *(name for name, finding in apart.items() if not self.allows_apart(finding)))

    @property
    def passed(self) -> bool:
        """Every figure is within the bound."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        measured = "largest error over RMS" if self.is_exact else "smallest cosine"
        return {
            "backend": self.setup.backend,
            "device": self.setup.device.partition(":")[0],
            "instruction_set": self.instruction_set,
            "precision": self.setup.precision,
            "bound": {"on": measured, "value": float(f"{self.bound:.3g}")},
            "outputs": [
                {
                    "name": output.name,
                    **output.found.as_json(),
                    "transformers": output.own.as_json(),
                    "passed": self.allows(output.found),
                }
                for output in self.outputs
            ],
            "alone": {**self.alone.as_json(), "passed": self.allows_apart(self.alone)},
            "shuffled": {**self.shuffled.as_json(), "passed": self.allows_apart(self.shuffled)},
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """What the model was run on.

    Attributes:
        source: "built-in", or the name of the user's file.
        sha256: of the texts.
        lengths: tokens of each, special tokens included, after the limit.
        max_length: the limit in this run.
        different_ids: texts (by number) whose ids are not those of transformers' tokenizer, or None: it could not be
            loaded.
    """

    source: str
    sha256: str
    lengths: tuple[int, ...]
    max_length: int
    different_ids: tuple[int, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "texts": len(self.lengths),
            "tokens": sum(self.lengths),
            "shortest": min(self.lengths),
            "longest": max(self.lengths),
            "max_length": self.max_length,
            "ids_compared": self.different_ids is not None,
            "different_ids": list(self.different_ids or ()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A whole verification.

    Attributes:
        model: name or hub id.
        commit: of the hub, or None.
        architecture: the family.
        reference_class: of transformers.
        versions: library -> version.
        sha256: file of the model -> hash.
        pooler: "trained", "untrained", "absent" (not in the files), or "none": the architecture has none.
        last_normed: the number of the one hidden state that comes out of a final norm, or None: there is no such norm.
        max_length: the model's own limit in tokens.
        texts: what was run.
        results: one a setup.
    """

    model: str
    commit: str | None
    architecture: str
    reference_class: str
    versions: dict[str, str]
    sha256: dict[str, str]
    pooler: str
    last_normed: int | None
    max_length: int
    texts: TextFacts
    results: tuple[SetupResult, ...]

    @property
    def passed(self) -> bool:
        """The same ids, and every figure within its bound."""
        return not self.texts.different_ids and all(result.passed for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": FORMAT,
            "passed": self.passed,
            "model": self.model,
            "commit": self.commit,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "reference": f"transformers {self.reference_class}",
            "versions": self.versions,
            "pooler": self.pooler,
            "last_normed": self.last_normed,
            "max_length": self.max_length,
            "texts": self.texts.as_json(),
            "results": [result.as_json() for result in self.results],
        }

    def to_json(self) -> str:
        """The certificate's text; the same findings give the same text."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
