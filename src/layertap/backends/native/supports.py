"""What the kernels can run: of models, by their specs; of precisions, by the instruction set."""

from __future__ import annotations

from layertap.models.positions import Disentangled, PositionTable
from layertap.models.spec import EncoderSpec


def supports(spec: EncoderSpec) -> str | None:
    """None, or what it has that the kernels do not run, in words: "rotary positions".

    They run the line of BERT (Devlin et al. 2019): learned absolute positions, a layer norm after every residual sum,
    attention of every token to every other, a feed-forward of two dense layers. Any sizes; layers may share weights
    (ALBERT), the tables may be narrower than the hidden states (ELECTRA), dense layers may do without a bias, scores
    may have a bias by distance (MPNet).
    """
    departures = {
        "norms before attention and feed-forward": spec.norm_position != "post",
        "root-mean-square norms": spec.norm != "layer",
        "norms without a bias": not spec.norm_bias,
        "embeddings without a norm": not spec.embedding_norm,
        "a norm behind the projection of the embeddings": spec.projection_first,
        "rotary positions": bool(spec.rotary_thetas),
        "disentangled attention": isinstance(spec.relative, Disentangled),
        "attention windows": any(window is not None for window in spec.windows),
        "keys and values that heads share": spec.key_value_size != spec.hidden_size,
        "gated feed-forwards": spec.gated,
        "a convolution": spec.convolution is not None,
        "positions without a table": not isinstance(spec.positions, PositionTable),
    }
    return next((what for what, is_there in departures.items() if is_there), None)
