"""Decides whether the kernels run a model."""

from __future__ import annotations

from layertap.models.spec import EncoderSpec


def supports(spec: EncoderSpec) -> str | None:
    """None, or what it has that the kernels do not run, in words: "a convolution".

    They run encoders of any size whose blocks are attention of every token to every other, or to those in a window, and
    a feed-forward of two dense layers or three (gated), with layer norms or root-mean-square norms after either half or
    before it. Positions may be learned, rotary, a bias of scores by distance, or vectors of distances (disentangled
    attention); heads may share keys and values, layers weights, and the tables may be narrower than the hidden states.
    """
    return None if spec.convolution is None else "a convolution"
