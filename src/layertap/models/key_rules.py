"""From a checkpoint's own names of weights to canonical ones and back, and the names that several families share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One reversible renaming of checkpoint keys: two templates with the same wildcards, each at most once.

    `*` stands for anything, `#` for a number. `KeyRule("bert.*", "*")` drops a prefix,
    `KeyRule("*LayerNorm.gamma", "*LayerNorm.weight")` renames an end, and
    `KeyRule("layers.#.attn.Wo.*", "encoder.layer.#.attention.output.dense.*")` what is between.
    Rules are applied in their order to read, and backwards to write.
    """

    stored: str
    canonical: str

    def to_canonical(self, key: str) -> str | None:
        """Return the key with its stored form replaced by the canonical one, or None where the rule does not apply."""
        return _rename(key, self.stored, self.canonical)

    def to_stored(self, key: str) -> str | None:
        """Return the key with its canonical form replaced by the stored one, or None where the rule does not apply."""
        return _rename(key, self.canonical, self.stored)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """One stored tensor that is several weights, one above the other: a fused projection.

    Applied to keys that the `KeyRule`s have renamed. The parts' shapes say how many rows belong to each.

    Attributes:
        fused: template of the fused key, as in `KeyRule`.
        parts: templates of the canonical names, in the order of their rows.
    """

    fused: str
    parts: tuple[str, ...]

    def to_parts(self, key: str) -> tuple[str, ...] | None:
        """Return the canonical names of the parts of a fused key, or None where the rule does not apply."""
        names = [_rename(key, self.fused, part) for part in self.parts]
        return None if None in names else tuple(name for name in names if name is not None)

    def to_fused(self, name: str) -> tuple[str, int] | None:
        """Return the fused key that a canonical name is a part of, and which part."""
        for i, part in enumerate(self.parts):
            key = _rename(name, part, self.fused)
            if key is not None:
                return key, i
        return None


def _rename(key: str, old: str, new: str) -> str | None:
    match = _pattern(old).fullmatch(key)
    if match is None:
        return None
    parts = match.groupdict()
    return new.replace("#", parts.get("number", "#")).replace("*", parts.get("rest", "*"))


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\*", "(?P<rest>.*)").replace(r"\#", "(?P<number>[0-9]+)")
    return re.compile(pattern, re.DOTALL)


# Old TensorFlow conversions call the norm's numbers gamma and beta.
NORM_RULES = (
    KeyRule("*LayerNorm.gamma", "*LayerNorm.weight"),
    KeyRule("*LayerNorm.beta", "*LayerNorm.bias"),
)

HEAD_KEYS = re.compile(
    r"(?:.*\.)?embeddings\.(?:position_ids|token_type_ids)"  # buffers that old versions persisted
    r"|cls\..*|lm_head\..*|qa_outputs\..*|classifier\..*"  # heads for other tasks
)


def head_keys(*names: str) -> re.Pattern[str]:
    """Build a pattern of `HEAD_KEYS` and the keys under these further heads."""
    return re.compile("|".join((HEAD_KEYS.pattern, *(rf"{name}\..*" for name in names))))


LAYER = "encoder.layer.#"
ATTENTION = f"{LAYER}.attention.self"

# Names that rotary families have in transformers, once what leads to a layer is `encoder.layer.#`.
ROTARY_RULES = (
    KeyRule(f"{LAYER}.self_attn.q_proj.*", f"{ATTENTION}.query.*"),
    KeyRule(f"{LAYER}.self_attn.k_proj.*", f"{ATTENTION}.key.*"),
    KeyRule(f"{LAYER}.self_attn.v_proj.*", f"{ATTENTION}.value.*"),
    KeyRule(f"{LAYER}.self_attn.o_proj.*", f"{LAYER}.attention.output.dense.*"),
    KeyRule(f"{LAYER}.mlp.gate_proj.*", f"{LAYER}.intermediate.gate.*"),
    KeyRule(f"{LAYER}.mlp.up_proj.*", f"{LAYER}.intermediate.dense.*"),
    KeyRule(f"{LAYER}.mlp.down_proj.*", f"{LAYER}.output.dense.*"),
)
QKV_PARTS = (f"{ATTENTION}.query.*", f"{ATTENTION}.key.*", f"{ATTENTION}.value.*")
