"""Decides whether the kernels run a model."""

from __future__ import annotations

from layertap.models.spec import EncoderSpec


def supports(spec: EncoderSpec) -> str | None:
    """Return None if the kernels run the model, otherwise the part that they lack, for example "a convolution".

    The kernels run encoders of any size. Blocks consist of attention, of every token to all others or to those within a
    window, and of a feed-forward of two dense layers, or three with a gate; layer norms or root-mean-square norms stand
    before or after either half. Positions may be learned, rotary, a bias of scores by distance, or vectors of distances
    (disentangled attention). Heads may share keys and values, layers may share weights, and the embedding tables may be
    narrower than the hidden states.
    """
    return None if spec.convolution is None else "a convolution"
