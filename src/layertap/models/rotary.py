"""Reads the rotary settings of configs, and refuses those that are not computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader, short
from layertap.models.fields import heads_of

RopeType = Literal["default", "linear", "dynamic", "ntk"]

# What settings may state beside type, base and factor -> the values that change nothing.
NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1, None),
    "attention_factor": (1, None),
    "mixed_b": (None,),
}
LARGEST = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Angles `position / scale * theta^(-2i / D)`.

    Attributes:
        theta: the base.
        scale: what positions are divided by.
        dynamic: from `max_position_embeddings` on the base depends on the longest sequence of a batch.
    """

    theta: float
    scale: float = 1.0
    dynamic: bool = False


def rotated_heads_of(
    config: ConfigReader, hidden_size: int, *, default: int, field: str = "num_attention_heads"
) -> int:
    """Read A: heads of even width, rotated whole; see `heads_of`."""
    heads = heads_of(config, hidden_size, default=default, field=field, even=True)
    size = hidden_size // heads
    config.refuse_unless("head_dim", (size, None), f"heads of another width than hidden_size / {field} ({size})")
    config.refuse_unless("partial_rotary_factor", (1, None), "only heads that are rotated whole are computed")
    return heads


def base_of(config: ConfigReader, field: str, default: float) -> float:
    """Return the base that a field states."""
    return config.number(field, default, low=1.0, high=LARGEST)


def read_rope(config: ConfigReader, *, theta: float, head_size: int, types: tuple[RopeType, ...]) -> Rope:
    """Read `rope_parameters`, or `rope_theta` and `rope_scaling` of older configs.

    Args:
        config: the model's.
        theta: the base where none is stated.
        head_size: D.
        types: the kinds of scaling that the family's own code computes; see `rope_of`.

    Raises:
        ConfigError: impossible values, or two fields that contradict each other.
        UnsupportedModelError: another kind of scaling, or a setting that would change angles.
    """
    new, old = (config.values.get(field) or None for field in ("rope_parameters", "rope_scaling"))
    if new and old and new != old:
        raise config.fail("rope_scaling", "nothing beside rope_parameters, or the same")
    field, settings = ("rope_scaling", old) if old else ("rope_parameters", new)
    outer = base_of(config, "rope_theta", theta)
    rope = rope_of(config, field, settings, theta=outer, head_size=head_size, types=types)
    if "rope_theta" in config.values and settings and settings.get("rope_theta", outer) != outer:
        raise config.fail("rope_theta", f"that of {field} ({short(settings['rope_theta'])}), or one of the two only")
    return rope


def rope_of(
    config: ConfigReader, field: str, settings: object, *, theta: float, head_size: int, types: tuple[RopeType, ...]
) -> Rope:
    """Read one object of rotary settings.

    Args:
        config: the model's.
        field: where the object stands, such as `rope_parameters`.
        settings: the object, or None.
        theta: the base where it states none.
        head_size: D.
        types: the kinds of scaling that the family's own code computes. `linear` divides positions by the factor
            (transformers), `ntk` multiplies the base by the factor s and divides positions by s^(2 / D) (Alibaba-NLP's
            modeling, https://kexue.fm/archives/9706).

    Raises:
        ConfigError: something that is no object, or impossible values.
        UnsupportedModelError: another kind of scaling, or a setting that would change angles.
    """
    if settings is None:
        return Rope(theta=theta)
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{config.file}: {field}: expected an object, found {short(settings)}")
    inner = ConfigReader(settings, f"{config.file}: {field}")
    base = base_of(inner, "rope_theta", theta)
    kind = _kind(inner, types)
    harmless = {"original_max_position_embeddings"} if kind == "default" else set()
    for name in settings.keys() - {"rope_type", "type", "rope_theta", "factor"} - harmless:
        inner.refuse_unless(name, NO_EFFECT.get(name, (None,)), "only a base and a factor are computed")
    if kind == "default":
        inner.refuse_unless("factor", (1, None), "a factor has a meaning only with a type of scaling")
        return Rope(theta=base)
    if settings.get("factor") is None:
        raise inner.fail("factor", "a number from 1")
    factor = inner.number("factor", 1.0, low=1.0, high=LARGEST)
    if kind == "linear":
        return Rope(theta=base, scale=factor)
    if kind == "dynamic":
        return Rope(theta=base, dynamic=True)
    return Rope(theta=base * factor, scale=factor ** (2 / head_size))


def _kind(inner: ConfigReader, types: tuple[RopeType, ...]) -> RopeType:
    stated = inner.values
    field = "rope_type" if "rope_type" in stated else "type"  # `type` before transformers 4.45
    scaling = stated.get(field, "default")
    kind = next((kind for kind in types if kind == scaling), None)
    if kind is None:
        raise UnsupportedModelError(
            f"{inner.file}: {field} is {short(scaling)}: of rotary scaling, this family computes {', '.join(types)}"
        )
    if stated.get("type", scaling) != scaling:
        raise inner.fail("type", f"what rope_type says ({short(scaling)})")
    return kind
