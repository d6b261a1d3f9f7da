"""Scaled rotary angles as configs state them: `rope_parameters`, or `rope_theta` and `rope_scaling` before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader, short

RopeType = Literal["default", "linear", "dynamic", "ntk"]

# Beside the type and the base: what may be stated, and the values at which it changes nothing.
NO_EFFECT: dict[str, tuple[Any, ...]] = {"partial_rotary_factor": (1, None), "mixed_b": (None,)}
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


def read_rope(config: ConfigReader, *, theta: float, head_size: int, types: tuple[RopeType, ...]) -> Rope:
    """What a config says of its angles.

    Args:
        config: the model's.
        theta: the base where none is stated.
        head_size: D.
        types: the kinds of scaling that the family's own code computes. `linear` divides positions by the factor
            (transformers), `ntk` multiplies the base by the factor s and divides positions by s^(2 / D) (Alibaba-NLP's
            modeling, https://kexue.fm/archives/9706).

    Raises:
        ConfigError: impossible values, or two fields that contradict each other.
        UnsupportedModelError: another kind of scaling, or a setting that would change angles.
    """
    field, stated = _stated(config)
    inner = ConfigReader(stated, f"{config.file}: {field}")
    outer_theta = config.values.get("rope_theta")
    if outer_theta is not None:
        theta = config.number("rope_theta", theta, low=1.0, high=LARGEST)
        if stated.get("rope_theta", outer_theta) != outer_theta:
            raise inner.fail("rope_theta", f"rope_theta beside {field} ({short(outer_theta)})")
    base = inner.number("rope_theta", theta, low=1.0, high=LARGEST)
    kind = _kind(inner, types)
    for name in stated.keys() - {"rope_type", "type", "rope_theta", "factor"}:
        inner.refuse_unless(name, NO_EFFECT.get(name, (None,)), "only a base and a factor are computed")
    if kind == "default":
        inner.refuse_unless("factor", (1, None), "a factor has a meaning only with a type of scaling")
        return Rope(theta=base)
    if stated.get("factor") is None:
        raise inner.fail("factor", "a number from 1")
    factor = inner.number("factor", 1.0, low=1.0, high=LARGEST)
    if kind == "linear":
        return Rope(theta=base, scale=factor)
    if kind == "dynamic":
        return Rope(theta=base, dynamic=True)
    return Rope(theta=base * factor, scale=factor ** (2 / head_size))


def _stated(config: ConfigReader) -> tuple[str, Mapping[str, Any]]:
    """The field that says something, and what."""
    new, old = (config.values.get(field) or {} for field in ("rope_parameters", "rope_scaling"))
    for field, value in (("rope_parameters", new), ("rope_scaling", old)):
        if not isinstance(value, dict):
            raise config.fail(field, "an object")
    if new and old and new != old:
        raise ConfigError(
            f"{config.file}: rope_scaling: expected nothing beside rope_parameters, or the same, found {short(old)}"
        )
    return ("rope_scaling", old) if old else ("rope_parameters", new)


def _kind(inner: ConfigReader, types: tuple[RopeType, ...]) -> RopeType:
    stated = inner.values
    field = "rope_type" if "rope_type" in stated else "type"
    found = stated.get(field, "default")
    kind = next((kind for kind in types if kind == found), None)
    if kind is None:
        raise UnsupportedModelError(
            f"{inner.file}: {field} is {short(found)}: of rotary scaling, this family computes {', '.join(types)}"
        )
    if stated.get("type", found) != found:
        raise inner.fail("type", f"what rope_type says ({short(found)})")
    return kind
