"""Extractors of programs, which may set what belongs to their whole process."""

from __future__ import annotations

from dataclasses import replace

from layertap.backends.choice import choose
from layertap.engine.extractor import Extractor
from layertap.engine.opening import OpenedModel
from layertap.engine.options import Runtime, Semantics


def extractor_of_process(opened: OpenedModel, semantics: Semantics, runtime: Runtime) -> Extractor:
    """Make the extractor of an open model. Threads belong to the run on the native backend, to the process with torch.

    For programs; in a library, `Extractor.of` refuses to change the threads of the process.

    Raises:
        BackendError: nothing here can run it, or not what was asked for.
        OptionError: an option that the backend does not have.
    """
    without = replace(runtime, threads=None)
    if (
        runtime.threads is not None
        and choose(opened.files.spec, without.request(semantics.precision)).backend == "torch"
    ):
        from layertap.backends.here import set_num_threads

        set_num_threads(runtime.threads)
        runtime = without
    return Extractor.of(opened, semantics, runtime)
