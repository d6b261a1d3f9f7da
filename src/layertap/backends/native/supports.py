"""What the kernels can run: of models, by their specs; of precisions, by the instruction set."""

from __future__ import annotations

from layertap.models.positions import Disentangled
from layertap.models.spec import EncoderSpec


def supports(spec: EncoderSpec) -> str | None:
    """None, or what it has that the kernels do not run, in words: "disentangled attention".

    They run encoders of any size whose blocks are attention of every token to every other, or to those in a window, and
    a feed-forward of two dense layers or three (gated), with layer norms or root-mean-square norms after either half or
    before it. Positions may be learned, rotary, or a bias of scores by distance; heads may share keys and values,
    layers weights, and the tables may be narrower than the hidden states.
    """
    departures = {
        "disentangled attention": isinstance(spec.relative, Disentangled),
        "a convolution": spec.convolution is not None,
    }
    return next((what for what, is_there in departures.items() if is_there), None)
