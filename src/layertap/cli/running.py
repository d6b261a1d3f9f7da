"""Options for what runs a model, and the extractor that is opened with them."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from layertap.cli.options import add_engine_options
from layertap.errors import BackendError, OptionError

if TYPE_CHECKING:
    from layertap.backends.facts import BackendRequest
    from layertap.engine.extractor import Extractor
    from layertap.engine.opening import OpenedModel
    from layertap.engine.options import Runtime, Semantics


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """Add options for what runs the model, and for how much memory it may take."""
    group = parser.add_argument_group("running")
    add_backend_options(group)
    add_engine_options(group, "batch_tokens")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary; errors are shown")


def add_backend_options(group: argparse._ArgumentGroup) -> None:
    """Add options for what runs the model."""
    add_engine_options(group, "backend", "device", "threads", "instruction_set")


def what_runs(opened: OpenedModel, request: BackendRequest) -> str:
    """Describe what would run the model, or say why nothing on this machine would."""
    from layertap.backends.choice import choose

    try:
        choice = choose(opened.files.spec, replace(request, threads=None))
    except (BackendError, OptionError) as refusal:
        return f"none: {refusal}"
    return str(replace(choice, threads=request.threads or choice.threads))


def extractor_of(opened: OpenedModel, semantics: Semantics, runtime: Runtime) -> Extractor:
    """Make the extractor of an open model, with the threads that were asked for.

    Raises:
        BackendError: nothing here can run it, or not what was asked for.
        OptionError: an option that the backend does not have.
    """
    from layertap.engine.process import extractor_of_process

    return extractor_of_process(opened, semantics, runtime)


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch garbage collection off while entered.

    Little of what imports make is garbage, and looking for it takes a tenth of their time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def silence_downloads(options: argparse.Namespace) -> None:
    """Keep the hub's client from drawing progress bars of its own where `--quiet` is given.

    The client looks at the environment when it is imported, so this comes before a model is opened.
    """
    if options.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
