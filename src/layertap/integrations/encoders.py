"""Encoder behind an adapter: an open one, or one to open."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.errors import OptionError
from layertap.features.expr import Expr
from layertap.sentence_encoder import SentenceEncoder


def encoder_of(
    model: str | PathLike[str] | Extractor | SentenceEncoder | None,
    feature: str | Expr | None,
    options: Mapping[str, Any],
) -> SentenceEncoder:
    """Return a `SentenceEncoder` as it is, or open one with a feature and options.

    Raises:
        OptionError: a feature or options for an encoder that is open already.
        UsageError, ModelNotFoundError, CheckpointError, BackendError: as in `SentenceEncoder`.
    """
    if not isinstance(model, SentenceEncoder):
        return SentenceEncoder(model, feature, **options)
    given = [*(["feature"] if feature is not None else []), *options]
    if given:
        raise OptionError(f"{given[0]}: the encoder is open already; give it the option when you open it")
    return model


def check_is_name(model: object) -> None:
    """Refuse an open model where an adapter is written to files, which hold the name of the model.

    Raises:
        OptionError: the model is neither a name nor a path nor None.
    """
    if not isinstance(model, str | PathLike | None):
        raise OptionError(
            f"the model is of type {type(model).__name__}; name it (a folder or a hub id), so that what is written to "
            "files can open it again"
        )
