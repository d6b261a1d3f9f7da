"""Decides whether the kernels run a model, and which of their results are equal across instruction sets."""

from __future__ import annotations

from collections.abc import Sequence

from layertap.models.spec import EncoderSpec

X86 = "x86"
"""Name, in provenance, of the float32 results that all sets of vectors give: AVX2 and every AVX-512 set."""


def gives_x86_bits(instruction_set: str, precision: str) -> bool:
    """Return whether results have the bits that float32 has on all x86-64 processors.

    AMX tiles compute float32 in bfloat16 parts and give bits of their own.
    """
    return precision == "float32" and not instruction_set.startswith("amx")


def default_instruction_set(names: Sequence[str], precision: str) -> str:
    """Return the best of a machine's sets, given best first; for float32 the best one that gives the bits of all."""
    return next((name for name in names if gives_x86_bits(name, precision)), names[0])


def supports(spec: EncoderSpec) -> str | None:
    """Return None if the kernels run the model, otherwise the part that they lack, for example "a convolution".

    The kernels run encoders of any size. Blocks consist of attention, of every token to all others or to those within a
    window, and of a feed-forward of two dense layers, or three with a gate; layer norms or root-mean-square norms stand
    before or after either half. Positions may be learned, rotary, a bias of scores by distance, or vectors of distances
    (disentangled attention). Heads may share keys and values, layers may share weights, and the embedding tables may be
    narrower than the hidden states.
    """
    return None if spec.convolution is None else "a convolution"
