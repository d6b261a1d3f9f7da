"""From what a user passes as `features` to names and expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import TypeAlias

from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.features.grammar import MAX_TEXT
from layertap.features.parse import parse, parse_named
from layertap.features.rewrite import declared
from layertap.features.schema import ModelFacts
from layertap.features.sources import last_hidden_state, sentence_embedding
from layertap.features.unselected import described

Features: TypeAlias = str | Expr | Sequence[str | Expr] | Mapping[str, str | Expr]


def named(features: Features | None, facts: ModelFacts) -> dict[str, Expr]:
    """Return names and features, in their order.

    A feature without a name is called by its canonical text. One text or expression stands for a list of one.

    Args:
        features: a text (`"v = last_hidden_state.mean"` or without name), an expression, a list of both, or a
            mapping from names to either; None: `sentence_embedding` where the model's folder declares it,
            else `last_hidden_state.mean`.
        facts: the model, for the default.

    Raises:
        FeatureError: nothing named, a name twice, a name that is no identifier, or something that is no feature.
        FeatureSyntaxError: a text that does not parse.
    """
    return parsed(default_feature(facts) if features is None else features)


def parsed(features: Features) -> dict[str, Expr]:
    """Return names and features in their order, as far as that goes without a model.

    Args:
        features: as in `named`.

    Raises:
        FeatureError: nothing named, a name twice, a name that is no identifier, or something that is no feature.
        FeatureSyntaxError: a text that does not parse.
    """
    if isinstance(features, str | Expr):
        features = [features]
    if isinstance(features, Mapping):
        pairs = [(_checked_name(name), _feature(value)) for name, value in features.items()]
    elif isinstance(features, list | tuple):
        pairs = [parse_named(value) if isinstance(value, str) else _unnamed(value) for value in features]
    else:
        raise FeatureError(
            f"features: a text, an expression, a list of them or a mapping from names, not {described(features)}"
        )
    if not pairs:
        raise FeatureError("features: none is named; leave features out for the default, or name at least one")
    by_name: dict[str, Expr] = {}
    for name, feature in pairs:
        if name in by_name:
            raise FeatureError(f"features: {name!r} is there twice; give one of them another name, as in v = {feature}")
        by_name[name] = feature
    return by_name


def default_feature(facts: ModelFacts) -> Expr:
    """Return the feature where none is named.

    Raises:
        FeatureError: the folder declares a sentence embedding that cannot be computed: nothing is guessed then.
    """
    if facts.sentence_embedding is None:
        return last_hidden_state.mean
    declared(facts)
    return sentence_embedding


def _feature(value: object) -> Expr:
    return parse(value) if isinstance(value, str) else _unnamed(value)[1]


def _unnamed(value: object) -> tuple[str, Expr]:
    if not isinstance(value, Expr):
        raise FeatureError(f"features: a text or an expression is expected, not {described(value)}")
    try:
        name = str(value)
    except RecursionError:
        raise FeatureError("features: an expression with too many steps") from None
    if len(name) > MAX_TEXT:
        raise FeatureError(f"features: {name[:60]}... has {len(name)} characters as text; at most {MAX_TEXT} are read")
    return name, value


def _checked_name(name: object) -> str:
    if isinstance(name, str) and name.isidentifier() and not iskeyword(name):
        return name
    raise FeatureError(f"features: a name is a word such as v or sentence_vector, not {name!r}")
