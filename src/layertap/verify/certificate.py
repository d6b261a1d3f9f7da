"""Results of a verification - figures, bounds and verdicts - as data and as JSON.

A certificate does not depend on when or where it was made, so the same files give the same certificate.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from layertap.verify.measure import (
    HALF_COSINE,
    HIGH_FACTOR,
    INT8_COSINE,
    OWN_ERROR_FACTOR,
    TF32_FACTOR,
    Difference,
)

FORMAT = 1
"""Version number of the JSON layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way to run a model.

    Attributes:
        backend: name of the backend, "torch" or "native".
        device: "cpu" or "cuda:N".
        precision: "float32", "float32-high", "bfloat16", "float16" or "int8".
    """

    backend: str
    device: str
    precision: str

    @property
    def reference_precision(self) -> str:
        """Precision of transformers that this one is compared with: the same, or the nearest that it has."""
        return {"float32-high": "float32", "int8": "bfloat16"}.get(self.precision, self.precision)

    @property
    def same_bits(self) -> bool:
        """Whether a text must have the same bits in every batch, as the native backend promises."""
        return self.backend == "native"

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}, {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Distance of an output from the expected one.

    Attributes:
        error_over_rms: largest |error| over RMS; infinity if a value is not finite.
        cosine: smallest cosine of an actual and an expected row.
    """

    error_over_rms: float
    cosine: float

    @classmethod
    def of(cls, difference: Difference) -> Figures:
        """Rounds the figures of a difference as the certificate shows them."""
        error = difference.error_over_rms
        return cls(
            error_over_rms=float(f"{error:.3g}") if math.isfinite(error) else math.inf,
            cosine=round(difference.cosine, 9),
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the figures; an infinite error is null."""
        finite = math.isfinite(self.error_over_rms)
        return {"error_over_rms": self.error_over_rms if finite else None, "cosine": self.cosine}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One hidden state, or the pooler's output.

    Attributes:
        name: "hidden_states[i]", "hidden_states[L].unnormed" or "pooler_output".
        layertap: layertap against transformers in float64.
        transformers: transformers in the setup's `reference_precision` against itself in float64.
    """

    name: str
    layertap: Figures
    transformers: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupResult:
    """Figures and verdict of one way to run the model.

    Attributes:
        setup: the backend, device and precision.
        instruction_set: instruction set of the backend's kernels.
        outputs: hidden states in order, then the last one before the final norm and the pooler's output, for models
            that have them.
        alone: all outputs of texts run one at a time, against those of the texts packed together.
        shuffled: all outputs of the texts in another order and other batches, against those packed together.
        base_bound: bound on errors in float32 for the model's depth.
    """

    setup: Setup
    instruction_set: str
    outputs: tuple[Output, ...]
    alone: Figures
    shuffled: Figures
    base_bound: float

    @property
    def is_exact(self) -> bool:
        """Whether the bound is on errors, as in float32; below float32 it is on cosines."""
        return self.setup.reference_precision == "float32"

    @property
    def bound(self) -> float:
        """Largest error over RMS in float32 and float32-high, or smallest cosine in other precisions."""
        if not self.is_exact:
            return INT8_COSINE if self.setup.precision == "int8" else HALF_COSINE
        own = max((output.transformers.error_over_rms for output in self.outputs), default=0.0)
        # An oracle that is not finite itself allows nothing.
        bound = max(self.base_bound, OWN_ERROR_FACTOR * own) if math.isfinite(own) else self.base_bound
        factor = TF32_FACTOR if self.setup.device.startswith("cuda") else HIGH_FACTOR
        return bound * factor if self.setup.precision == "float32-high" else bound

    def allows(self, finding: Figures) -> bool:
        """Tells whether the figures of an output are within the bound."""
        if self.is_exact:
            return finding.error_over_rms <= self.bound
        return math.isfinite(finding.error_over_rms) and finding.cosine >= self.bound

    def allows_apart(self, finding: Figures) -> bool:
        """Tells whether a text may differ this much from itself in another batch."""
        return finding.error_over_rms == 0 if self.setup.same_bits else self.allows(finding)

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the figures beyond the bound: names of outputs, "alone" and "shuffled"."""
        names = [output.name for output in self.outputs if not self.allows(output.layertap)]
        apart = {"alone": self.alone, "shuffled": self.shuffled}
        return (*names, *(name for name, finding in apart.items() if not self.allows_apart(finding)))

    @property
    def passed(self) -> bool:
        """Whether every figure is within the bound."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the result, with a verdict for each figure."""
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
                    **output.layertap.as_json(),
                    "transformers": output.transformers.as_json(),
                    "passed": self.allows(output.layertap),
                }
                for output in self.outputs
            ],
            "alone": {**self.alone.as_json(), "passed": self.allows_apart(self.alone)},
            "shuffled": {**self.shuffled.as_json(), "passed": self.allows_apart(self.shuffled)},
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """Facts about the texts that the model was run on.

    Attributes:
        source: "built-in", or the name of the user's file.
        sha256: hash of the texts.
        lengths: tokens of each text after truncation, special tokens included.
        max_length: limit in tokens in this run.
        different_ids: numbers of the texts for which transformers' tokenizer gives other ids; None if it could not be
            loaded.
        own_ids: of these, whether `tokenizer.json` by itself gives the ids of layertap for all, so that the difference
            is one of the class that transformers chose.
        reference_class: name of the class of transformers' tokenizer; None if it could not be loaded.
    """

    source: str
    sha256: str
    lengths: tuple[int, ...]
    max_length: int
    different_ids: tuple[int, ...] | None
    own_ids: bool = False
    reference_class: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the facts."""
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
            "ids_of_tokenizer_json": self.own_ids,
            "reference_tokenizer": self.reference_class,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Certificate of a whole verification.

    Attributes:
        model: name of the folder, or hub id.
        commit: commit on the hub, or None.
        architecture: name of the family.
        reference_class: name of the model class in transformers.
        versions: version of each library.
        sha256: hash of each file of the model.
        pooler: "trained", "untrained", "absent" (not in the files) or "none" (the architecture has no pooler).
        last_normed: index of the hidden state that is the output of a final norm, or None if there is no such norm.
        max_length: limit of the model in tokens.
        texts: facts about the texts.
        results: one result for each setup.
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
        """Whether the token ids are right and every figure is within its bound.

        Ids that differ from those of transformers' tokenizer are right where `tokenizer.json` by itself gives them.
        """
        ids_are_right = not self.texts.different_ids or self.texts.own_ids
        return ids_are_right and all(result.passed for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the certificate."""
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
        """Formats the certificate as JSON; equal results give equal text."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
