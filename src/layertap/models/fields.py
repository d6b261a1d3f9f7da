"""Config fields that mean the same in several families."""

from __future__ import annotations

from layertap.models.config import ConfigReader
from layertap.models.spec import Activation

ACTIVATIONS: dict[str, Activation] = {
    # Two exact spellings of the erf form; the tanh forms differ from it by up to 5e-4.
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
DECODER = "a decoder attends to the left only; layertap runs encoders"


def heads_of(
    config: ConfigReader,
    hidden_size: int,
    *,
    default: int,
    field: str = "num_attention_heads",
    width: str = "hidden_size",
    even: bool = False,
) -> int:
    """Read A, the number of heads, which share H evenly.

    Args:
        config: the model's.
        hidden_size: H.
        default: A where the config does not state it.
        field: the field that states A.
        width: the field that states H.
        even: D is even, too: halves of a head are rotated against each other.
    """
    heads = config.size(field, default)
    if hidden_size % heads or (even and hidden_size // heads % 2):
        evenly = " that gives an even width" if even else ""
        raise config.fail(field, f"a divisor of {width} ({hidden_size}){evenly}")
    return heads


def pad_id_of(config: ConfigReader, *, vocab_size: int, default: int | None) -> int | None:
    """Return the padding id, a row of the word table, or None: there is none."""
    pad = config.optional_id("pad_token_id", default)
    if pad is not None and pad >= vocab_size:
        raise config.fail("pad_token_id", f"an id below vocab_size ({vocab_size})")
    return pad


def refuse_other_forms(config: ConfigReader) -> None:
    """Refuses what a config may ask of an encoder of any family, and none computes."""
    config.refuse_unless("is_decoder", (False, None), DECODER)
    config.refuse_unless("is_causal", (False, None), DECODER)
    config.refuse_unless("add_cross_attention", (False, None), "cross-attention needs a second input")
    config.refuse_unless("quantization_config", (None,), "quantised checkpoints are not read")
