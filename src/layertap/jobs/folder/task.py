"""A run's work as a value that other processes can be sent, from which each of them makes its own worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from layertap.data.folder import FolderRoot, folder_files
from layertap.data.folder.contents import read_plan
from layertap.data.inputs import InputSet
from layertap.data.readers.options import ReadOptions
from layertap.engine.extractor import Extractor
from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference, Runtime, Semantics
from layertap.engine.process import extractor_of_process
from layertap.errors import OutputError, printable
from layertap.jobs.folder.job import FolderJob
from layertap.jobs.folder.request import FolderRequest, features_of
from layertap.jobs.folder.shard import ShardWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderTask:
    """Work of a run, without anything that is open: it can be pickled, and what crosses to workers is shard numbers.

    Attributes:
        root: path of the folder.
        inputs: the inputs.
        format: format of the inputs, or None.
        options: options for reading.
        reference: the model.
        semantics: options that change results.
        runtime: options that do not.
        max_errors: number of rows that may be left out in all, or None.
        worker: number of the worker among those of one machine, which says which of several GPUs is its own; None where
            there is one worker.
    """

    root: FolderRoot
    inputs: InputSet
    format: str | None
    options: ReadOptions
    reference: ModelReference
    semantics: Semantics
    runtime: Runtime
    max_errors: int | None
    worker: int | None = None

    @classmethod
    def of(cls, job: FolderJob, extractor: Extractor) -> FolderTask:
        """Return the work of a job with the model and the options of an extractor."""
        return cls(
            root=job.root,
            inputs=job.inputs,
            format=job.format,
            options=job.options,
            reference=extractor.reference,
            semantics=extractor.semantics,
            runtime=extractor.runtime,
            max_errors=job.max_errors,
        )

    def open(self, extractor: Extractor | None = None) -> ShardWorker:
        """Open the model in this process, and return a worker for the shards of the folder's plan.

        Args:
            extractor: a model that is open already, or None.

        Raises:
            UsageError: this process would compute other results than the plan states, for example because its processor
                has another instruction set.
            OutputError: the folder or its plan is not there.
        """
        plan = read_plan(folder_files(self.root))
        if plan is None:
            raise OutputError(f"{printable(self.root)}: the folder or its plan is not there any more")
        if extractor is None:
            extractor = extractor_of_process(open_reference(self.reference), self.semantics, self._own_runtime())
            request = FolderRequest.of(
                extractor,
                features_of(plan),
                details=plan.details,
                options=self.options,
                format=self.format,
                shard_records=None,
            )
            request.refuse_differing(plan, name=printable(self.root), instruction_sets=instruction_sets_here)
        return ShardWorker(root=self.root, plan=plan, inputs=self.inputs, streams=extractor, max_errors=self.max_errors)

    def _own_runtime(self) -> Runtime:
        if self.worker is None or self.runtime.device != "cuda":
            return self.runtime
        from layertap.backends.here import installed

        devices = [name for backend in installed() for name in backend.devices if name.startswith("cuda:")]
        return replace(self.runtime, device=devices[self.worker % len(devices)]) if devices else self.runtime


def instruction_sets_here() -> tuple[str, ...]:
    """Return the instruction sets that can be asked for on this machine; none where the native backend is not built."""
    from layertap.backends.here import native_absence, native_kernels
    from layertap.backends.native.supports import X86

    return () if native_absence() is not None else (*native_kernels().instruction_sets(), X86)
