"""What configs of rotary encoders say, and which of it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader, short

# Settings that change no angle where `rope_type` is "default" -> values that ask for nothing; None: any.
HARMLESS: Mapping[str, tuple[Any, ...] | None] = {
    "partial_rotary_factor": (None, 1.0),
    "factor": (None, 1.0),
    "attention_factor": (None, 1.0),
    "original_max_position_embeddings": None,
}
LARGEST_THETA = 1e15


def heads_of(config: ConfigReader, *, hidden_size: int, default: int) -> int:
    """A: heads of even width, since halves of a head are rotated against each other."""
    heads = config.size("num_attention_heads", default)
    if hidden_size % heads or hidden_size // heads % 2:
        raise config.fail("num_attention_heads", f"a divisor of hidden_size ({hidden_size}) that gives an even width")
    width = hidden_size // heads
    config.refuse_unless(
        "head_dim", (width, None), f"heads of another width than hidden_size / num_attention_heads ({width})"
    )
    return heads


def pad_id_of(config: ConfigReader, *, vocab_size: int, default: int | None) -> int | None:
    """The padding id, a row of the word table."""
    pad = config.optional_id("pad_token_id", default)
    if pad is not None and pad >= vocab_size:
        raise config.fail("pad_token_id", f"an id below vocab_size ({vocab_size})")
    return pad


def theta_of(config: ConfigReader, field: str, settings: object, default: float) -> float:
    """The base of the rotary angles that an object of rotary settings states.

    Args:
        config: what to call in messages.
        field: where the object stands, such as `rope_parameters`.
        settings: the object, or None.
        default: the base where it states none.

    Raises:
        UnsupportedModelError: angles that are scaled, or settings that are not known.
        ConfigError: something that is no object, or no number.
    """
    if settings is None:
        return default
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{config.file}: {field}: expected an object, found {short(settings)}")
    for name in ("rope_type", "type"):  # `type` before transformers 4.45
        if settings.get(name, "default") != "default":
            raise UnsupportedModelError(
                f"{config.file}: {field}.{name}: expected 'default', found {short(settings[name])}: scaled rotary "
                "angles are not supported"
            )
    for name, value in settings.items():
        if name in ("rope_type", "type", "rope_theta"):
            continue
        harmless = HARMLESS.get(name, ())
        if harmless is not None and value not in harmless:
            raise UnsupportedModelError(
                f"{config.file}: {field}.{name}: expected rope_theta alone beside rope_type, found {short(value)}"
            )
    return ConfigReader(settings, f"{config.file}: {field}").number("rope_theta", default, low=1.0, high=LARGEST_THETA)


def top_theta_of(config: ConfigReader, field: str, default: float) -> float:
    """The base that a field of its own states."""
    return config.number(field, default, low=1.0, high=LARGEST_THETA)


def refuse_other_forms(config: ConfigReader) -> None:
    """Refuses what neither of these families computes, whichever file states it."""
    config.refuse_unless("is_decoder", (False, None), "a decoder attends to the left only; layertap runs encoders")
    config.refuse_unless("is_causal", (False, None), "a decoder attends to the left only; layertap runs encoders")
    config.refuse_unless("add_cross_attention", (False, None), "cross-attention needs a second input")
    config.refuse_unless("quantization_config", (None,), "quantised checkpoints are not read")
    config.refuse_unless("partial_rotary_factor", (1.0, None), "heads that are rotated in part are not supported")
