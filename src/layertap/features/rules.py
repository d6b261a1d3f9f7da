"""Savings of a plan, each with a name under which it can be switched off."""

from __future__ import annotations

from dataclasses import dataclass, fields

from layertap.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Savings that a plan makes. With each of them on or off results are equal, up to float32 rounding.

    Attributes:
        stop: run no block above the highest one needed; off: run all L.
        capture: reduce tokens inside the backend; off: the backend returns whole states and numpy reduces them.
        rows: where the top block is needed only at first, last or CLS tokens or in spans, compute only these rows
            there.
        share: compute all features in one run; off: one run for each feature.
        fold: pool each layer before layers are folded, where that commutes; off: the backend folds states.
        heads: run the pooler only when a feature asks for it; off: always, where the model has a usable one.
        repeat: run texts that are equal once where they are computed together; off: each of them.
    """

    stop: bool = True
    capture: bool = True
    rows: bool = True
    share: bool = True
    fold: bool = True
    heads: bool = True
    repeat: bool = True

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all rules."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def without(cls, *names: str) -> Rules:
        """Return all rules but the named ones.

        Raises:
            OptionError: a name is not the name of a rule.
        """
        for name in names:
            if name not in cls.names():
                raise OptionError(f"no plan rule is called {name!r}; rules are {', '.join(cls.names())}")
        return cls(**dict.fromkeys(names, False))
