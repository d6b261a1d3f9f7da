"""What runs a model: the options that say so, and the extractor that comes of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from layertap.cli.options import BACKENDS
from layertap.errors import BackendError, OptionError

if TYPE_CHECKING:
    from layertap.backends.facts import BackendRequest
    from layertap.engine.extractor import Extractor
    from layertap.engine.opening import OpenedModel
    from layertap.engine.options import Runtime, Semantics


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """What runs the model, and how much it may take."""
    group = parser.add_argument_group("running")
    add_backend_options(group)
    group.add_argument(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="tokens a batch (default: 16,384; with torch 4,096, on CUDA 65,536)",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary; errors are shown")


def add_backend_options(group: argparse._ArgumentGroup) -> None:
    """What runs the model."""
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        metavar="NAME",
        help="what runs the model: native (this processor), torch, or auto: native where it can, else torch "
        "(default: auto; `layertap explain` says which)",
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    group.add_argument(
        "--threads", type=int, metavar="N", help="processor threads (default: one a core; torch's as it finds best)"
    )
    group.add_argument(
        "--instruction-set",
        metavar="NAME",
        help="of the native kernels, as avx2 (default: the best there is; `layertap inspect` lists them)",
    )


def what_runs(opened: OpenedModel, request: BackendRequest) -> str:
    """What would run the model, in words; where nothing here would: why not."""
    from layertap.backends.choice import choose

    try:
        choice = choose(opened.files.spec, replace(request, threads=None))
    except (BackendError, OptionError) as refusal:
        return f"none: {refusal}"
    return str(replace(choice, threads=request.threads or choice.threads))


def extractor_of(opened: OpenedModel, semantics: Semantics, runtime: Runtime) -> Extractor:
    """The model, ready to run. Threads are the run's own on the native backend; torch's are the process's.

    Raises:
        BackendError: nothing here can run it, or not what was asked for.
        OptionError: an option that the backend does not have.
    """
    from layertap.backends.choice import choose
    from layertap.engine.extractor import Extractor

    without = replace(runtime, threads=None)
    if (
        runtime.threads is not None
        and choose(opened.files.spec, without.request(semantics.precision)).backend == "torch"
    ):
        from layertap.backends.here import set_num_threads

        set_num_threads(runtime.threads)
        runtime = without
    return Extractor.of(opened, semantics, runtime)
