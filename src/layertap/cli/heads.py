"""Heads that a command line names: those of `layertap fit`, or the one that a checkpoint stores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.options import add_engine_options, add_long_options, reference_of
from layertap.engine.options import OPTIONS, ClassifierOptions, names_of
from layertap.errors import InputError, ModelNotFoundError, OptionError

if TYPE_CHECKING:
    from layertap.engine.opening import OpenedModel
    from layertap.engine.options import ModelReference, Semantics
    from layertap.learn.heads.base import PredictionHead
    from layertap.learn.heads.head import Head

FIXED = tuple(name for name in names_of(ClassifierOptions) if OPTIONS[name].group == "semantics")
"""Options that change results; a head of `layertap fit` brings its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHead:
    """Head that a checkpoint stores, before it is opened.

    Attributes:
        model: where it is.
        name: what its results are called, or None: by the model's name.
    """

    model: str
    name: str | None


def add_own_head_options(parser: argparse.ArgumentParser) -> None:
    """Add options that a head of a checkpoint takes; those of `layertap fit` have them fixed."""
    group = parser.add_argument_group("a checkpoint's own head (those of `layertap fit` have these fixed)")
    add_engine_options(
        group,
        "precision",
        unset=True,
        description="precision of weights and hidden states: float32, bfloat16, or float16 on CUDA",
    )
    add_engine_options(group, "max_length", "word_pattern", unset=True)
    add_long_options(parser, unset=True)


def asked_heads(options: argparse.Namespace) -> list[Head] | OwnHead:
    """Return the heads that the command line names: those of `fit`, or the one that a checkpoint stores."""
    named: list[str] = options.heads or []
    heads_given = [_head(text) for text in named]
    own = [head for head in heads_given if isinstance(head, OwnHead)]
    if not heads_given:
        if options.model is None:
            raise OptionError("name a head (--head), or a checkpoint that stores one (--model)")
        own = [OwnHead(model=options.model, name=options.name)]
    elif options.name is not None:
        raise OptionError(f"--name {options.name} goes with --model alone; with --head write NAME=FOLDER")
    elif own and len(heads_given) > 1:
        raise OptionError(f"--head {own[0].model} is a checkpoint with a head of its own, which runs without others")
    elif own and options.model is not None:
        raise OptionError(f"--head {own[0].model} is a checkpoint with a head of its own; leave out --model")
    if own:
        return own[0]
    heads = [head for head in heads_given if not isinstance(head, OwnHead)]
    given = next((name for name in FIXED if getattr(options, name) is not None), None)
    if given is not None:
        raise OptionError(
            f"--{given.replace('_', '-')} goes with the head that a checkpoint stores; a head of `layertap fit` runs "
            "with the options that it was fitted with"
        )
    _check_together(heads)
    return heads


def _head(text: str) -> Head | OwnHead:
    from layertap.learn.heads.files import JSON_FILE
    from layertap.learn.heads.head import Head

    name, folder = named_folder(text)
    place = Path(folder)
    if (place / "config.json").is_file() and not (place / JSON_FILE).exists():
        return OwnHead(model=folder, name=name or None)
    try:
        head = Head.load(folder)
    except InputError as error:
        if not place.is_dir():
            error.add_note("a model of the Hugging Face hub that stores a head is named by --model")
        raise
    return replace(head, name=name) if name else head


def named_folder(text: str) -> tuple[str, str]:
    """Split NAME=FOLDER; the name is empty where none is given."""
    name, equals, folder = text.partition("=")
    if not equals or Path(text).is_dir():
        return "", text
    if not name:
        raise OptionError(f"--head {text!r}: expected FOLDER or NAME=FOLDER")
    return name, folder


def reference_to(options: argparse.Namespace, asked: list[Head] | OwnHead) -> ModelReference:
    """Return the model to open: the one named, or the one on which the heads were fitted."""
    given = reference_of(options)
    if isinstance(asked, OwnHead):
        return replace(given, name=asked.model)
    if options.model is not None:
        return given
    fitted_on = asked[0].reference
    return replace(
        given,
        name=fitted_on.name,
        revision=options.revision or fitted_on.revision,
        allow_pickle=options.allow_pickle or fitted_on.allow_pickle,
    )


def semantics_for(options: argparse.Namespace, asked: list[Head] | OwnHead) -> Semantics:
    """Return the options with which heads were fitted, or those given for the head that a checkpoint stores."""
    from layertap.engine.options import Semantics

    if not isinstance(asked, OwnHead):
        return asked[0].semantics
    given = {name: getattr(options, name) for name in FIXED if getattr(options, name) is not None}
    return Semantics(untrained_pooler="use", **given)  # the head was trained on the pooler as it is


def open_heads(reference: ModelReference, asked: list[Head] | OwnHead) -> tuple[OpenedModel, Sequence[PredictionHead]]:
    """Open the model, and return it with the heads, which are checked against it."""
    from layertap.engine.opening import open_reference
    from layertap.learn.heads.checkpoint import CheckpointHead
    from layertap.learn.heads.classifier import default_name

    if isinstance(asked, OwnHead):
        opened = open_reference(reference)
        name = asked.name or default_name(asked.model)
        return opened, [CheckpointHead.of(opened.files, name, allow_pickle=reference.allow_pickle)]
    try:
        opened = open_reference(reference)
    except ModelNotFoundError as error:
        error.add_note(f"head {asked[0].name!r} was fitted on it; --model says where it is now")
        raise
    for head in asked:
        head.check_model(opened.files)
    return opened, asked


def _check_together(heads: list[Head]) -> None:
    """Refuse heads that cannot share one pass, before a model is opened."""
    first = heads[0]
    for head in heads[1:]:
        if head.model.sha256 != first.model.sha256:
            raise OptionError(
                f"heads {first.name!r} and {head.name!r} were fitted on different models ({first.model}; "
                f"{head.model}); run them one by one"
            )
        if head.semantics != first.semantics:
            raise OptionError(
                f"heads {first.name!r} and {head.name!r} were fitted with different options ({first.semantics}; "
                f"{head.semantics}); run them one by one"
            )
