"""Several features, joined to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.features.grammar import MAX_DEPTH, MAX_SIZE, Form, Kind
from layertap.features.unselected import described


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Concat(Expr):
    """Vectors joined to one; made by `concat`."""

    parts: tuple[Expr, ...]
    form: Form = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise FeatureError("concat joins two or more features, as in concat(last_hidden_state.cls, pooler_output)")
        for part in self.parts:
            if not isinstance(part, Expr):
                raise FeatureError(f"concat joins features, not {described(part)}")
            if part.form.stored:
                raise FeatureError(f"concat({part}, ...): astype comes after concat: concat(...).astype(...)")
            if part.form.unit == "maps":
                raise FeatureError(
                    f"concat({part}, ...): attentions are no vectors to join; ask for them by themselves"
                )
            if part.form.layers:
                raise FeatureError(
                    f"concat({part}, ...): several layers; fold them first, as in hidden_states[-4:].layer_mean.mean"
                )
        depth = 1 + max(part.form.depth for part in self.parts)
        size = 1 + sum(part.form.size for part in self.parts)
        if depth > MAX_DEPTH or size > MAX_SIZE:
            raise FeatureError(f"a feature has at most {MAX_DEPTH} steps after one another and {MAX_SIZE} parts in all")
        units = {part.form.unit for part in self.parts}
        if len(units) > 1:
            ragged = next(part for part in self.parts if part.form.ragged)
            what = {"tokens": "token", "content": "token (special=False)", "words": "word", "spans": "span"}
            raise FeatureError(
                f"concat joins vectors of one kind, of texts, tokens, words or spans; {ragged} has one a "
                f"{what[ragged.form.unit]}: pool it, as in "
                f"{ragged if ragged.form.kind == Kind.VECTORS else ragged.mean}"
            )
        form = Form(kind=Kind.VECTORS, layers=False, unit=units.pop(), depth=depth, size=size)
        object.__setattr__(self, "form", form)

    def __str__(self) -> str:
        return f"concat({', '.join(str(part) for part in self.parts)})"


def concat(*parts: Expr) -> Concat:
    """Joins vectors to one, in their order; a concat among the parts is taken apart first.

    Args:
        parts: two or more features, all with one vector a text or all with one a token, without layers axis.
    """
    flat: list[Expr] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Concat) else (part,))
    return Concat(parts=tuple(flat))
