"""What the kernels have here."""

from __future__ import annotations

from layertap.backends.here import BackendFacts
from layertap.backends.native import _native


def facts() -> BackendFacts:
    """The instruction sets and precisions of this machine's processor."""
    sets = _native.instruction_sets()
    return BackendFacts(
        name="native",
        version=_native.compiler(),
        devices={"cpu": "the processor"},
        instruction_sets=tuple(sets),
        precisions=tuple(_native.precisions(sets[0])),
        threads=_native.available_threads(),
    )
