"""Heads that the server runs: those of `layertap fit`, and the one that a checkpoint stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layertap.engine.extractor import Extractor
from layertap.errors import OptionError
from layertap.learn.heads.checkpoint import CheckpointHead
from layertap.learn.heads.families import stated_task
from layertap.learn.heads.head import Head
from layertap.server.model import ServedHead


def heads_of(extractor: Extractor, named: Sequence[str], model: str) -> dict[str, ServedHead]:
    """Open heads and check them against the model.

    Args:
        extractor: the open model.
        named: folders that `layertap fit` made, each with or without `NAME=` before it.
        model: id of the model, the name of the head that its checkpoint stores.

    Raises:
        InputError: a folder is not a head.
        OptionError: a head of another model or precision, or two heads of one name.
        UnsupportedModelError, WeightsError: a stored head that cannot be run.
    """
    heads: dict[str, ServedHead] = {}
    if stated_task(extractor.files) is not None:
        own = CheckpointHead.of(extractor.files, model, allow_pickle=extractor.reference.allow_pickle)
        # The head was trained on the pooler as it is.
        heads[model] = ServedHead.of(own, extractor, replace(extractor.semantics, untrained_pooler="use"))
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            name, folder = "", text
        head = Head.load(folder)
        head = replace(head, name=name) if name else head
        if head.name in heads:
            raise OptionError(f"--head: two heads are called {head.name!r}; rename one (--head other={folder})")
        heads[head.name] = ServedHead.of(head, extractor, head.semantics)
    return heads
