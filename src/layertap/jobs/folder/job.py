"""A run from inputs to a folder of features as a value, checked as far as that goes without the model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layertap.data.folder import FolderRoot, folder_files, folder_root, is_feature_folder, shared_folder
from layertap.data.folder.contents import read_plan
from layertap.data.folder.layout import LOG, PLAN
from layertap.data.inputs import InputSet
from layertap.data.readers.options import ReadOptions
from layertap.data.remote import RemotePlace, is_remote
from layertap.engine.details import checked_names
from layertap.engine.forecast import checked_limit
from layertap.errors import OptionError, OutputError, UsageError, printable
from layertap.features.naming import Features, parsed
from layertap.files import FOLDER, check_new_folder, identity, refuse_overlap
from layertap.jobs.folder.planning import check_shard_records

MOST_PARTS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPart:
    """The share of an index worker, one of several that are started by themselves: shards `index`, `index + of`, ...

    Attributes:
        index: number of the worker, from 0.
        of: number of workers.
    """

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> WorkerPart:
        """Parse `I/N`, for example `3/16`.

        Raises:
            OptionError: the text is no such pair, or the index is not below the number of workers.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
        index, of = map(int, match.groups()) if match else (0, 0)
        if not 0 <= index < of <= MOST_PARTS:
            raise OptionError(
                f"--worker {text!r}: expected I/N with I from 0 to N - 1, as --worker 0/4 to --worker 3/4 for four "
                "workers"
            )
        return cls(index=index, of=of)

    def has(self, shard: int) -> bool:
        """Return whether a shard is among those of the worker."""
        return shard % self.of == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderJob:
    """A run from inputs to a folder of features; `FolderJob.checked` makes one.

    Attributes:
        root: absolute path of the folder.
        name: the folder as the user named it, for messages.
        inputs: the inputs.
        format: format of the inputs, or None for the one that each name says.
        options: options for reading, without a limit for errors, which counts over all inputs.
        features: features to compute, or None for the default feature.
        details: details of tokens and words to write beside the features.
        shard_records: rows of a shard, or None for the default.
        max_errors: number of rows that may be left out in all, or None for any number.
        max_output_bytes: size of the largest results that are computed, or None for any size.
        forget: whether shards of inputs that are not named any more are removed.
        part: the share of this process, or None for all shards.
    """

    root: FolderRoot
    name: str
    inputs: InputSet
    format: str | None
    options: ReadOptions
    features: Features | None
    details: tuple[str, ...]
    shard_records: int | None
    max_errors: int | None
    max_output_bytes: int | None
    forget: bool
    part: WorkerPart | None

    @classmethod
    def checked(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        output: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - the word of every tool of this kind
        options: ReadOptions,
        features: Features | None = None,
        details: bool | Iterable[str] = False,
        shard_records: int | None = None,
        max_output_bytes: int | None = None,
        forget: bool = False,
        part: WorkerPart | None = None,
        also_read: Iterable[str | os.PathLike[str]] = (),
    ) -> FolderJob:
        """Make a job, after every check that needs neither the content of the inputs nor the model.

        Args:
            paths: files, folders and patterns of the inputs.
            output: the folder to make or to continue.
            format: format of the inputs.
            options: options for reading.
            features, details, shard_records, max_output_bytes, forget, part: see the attributes.
            also_read: other files and folders that the run reads, such as the model's.

        Raises:
            UsageError: a folder that holds something else, or that is among the inputs; an option out of range.
            OutputError: a folder that cannot be written.
            InputError: an input that does not exist, or a plan that is damaged or of another version.
        """
        if features is not None:
            parsed(features)
        if isinstance(details, str):
            raise OptionError(f"details is the string {details!r}; give a list of names, or True for all of them")
        root = check_folder(output)
        _refuse_inside(output, root, [*paths, *also_read])
        reading = replace(options, max_errors=None)
        return cls(
            root=root,
            name=printable(output),
            inputs=InputSet.resolve(paths, format, reading),
            format=format,
            options=reading,
            features=features,
            details=checked_names(details if isinstance(details, bool) else tuple(details)),
            shard_records=None if shard_records is None else check_shard_records(shard_records),
            max_errors=options.max_errors,
            max_output_bytes=None if max_output_bytes is None else checked_limit(max_output_bytes),
            forget=forget,
            part=part,
        )


def is_folder_output(output: str | os.PathLike[str]) -> bool:
    """Return whether an output is a folder of features: its name ends with a slash, or one stands there."""
    return os.fspath(output).endswith(("/", os.sep)) or is_feature_folder(output)


def check_folder(output: str | os.PathLike[str]) -> FolderRoot:
    """Refuse a place that is no folder of features and cannot become one, and return its absolute path.

    Raises:
        UsageError: a folder that holds something else.
        OutputError: a file, or a folder that cannot be made or written.
        InputError: a plan that is damaged, or of another version.
    """
    root = folder_root(output)
    name = printable(output)
    if isinstance(root, RemotePlace):
        return _checked_store(root, name)
    if not os.path.lexists(root):
        check_new_folder(root)
        return root
    if not root.is_dir():
        raise OutputError(f"{name}: a file stands there, and the output is a folder; name another, or remove the file")
    if not os.access(root, os.W_OK | os.X_OK):
        raise OutputError(f"{name}: the folder is not writable")
    if read_plan(folder_files(root)) is None:
        # A run that was killed before it wrote its plan leaves no more than this.
        others = sorted(
            entry.name for entry in root.iterdir() if entry.name != LOG and not entry.name.startswith(f".{FOLDER}.")
        )
        if others:
            raise UsageError(
                f"{name}: the folder holds {', '.join(map(printable, others[:3]))}{' and more' if others[3:] else ''} "
                f"and no {PLAN}, so it is no folder of features; name a new folder"
            )
    return root


def _checked_store(root: RemotePlace, name: str) -> RemotePlace:
    """Refuse a place on an object store that is not written to, or that holds something else."""
    folder = shared_folder(root)
    if read_plan(folder_files(root)) is None:
        others = folder.names("")
        if others:
            raise UsageError(
                f"{name}: there are objects of this prefix ({', '.join(map(printable, others[:3]))}) and no {PLAN}, so "
                "it is no folder of features; name another prefix"
            )
    return root


def _refuse_inside(output: str | os.PathLike[str], root: FolderRoot, sources: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse a folder inside an input folder, which would become an input of the next run, and the reverse."""
    if isinstance(root, RemotePlace):
        urls = [os.fspath(source).rstrip("/") + "/" for source in sources if is_remote(source)]
        own = root.url.rstrip("/") + "/"
        if any(own.startswith(url) or url.startswith(own) for url in urls):
            raise OptionError(f"{printable(output)} stands in a folder that is read, or holds one; name another place")
        return
    refuse_overlap(sources, {"the folder of features": root})
    folders = {identity(source) for source in sources if Path(source).is_dir()} - {None}
    if any(identity(parent) in folders for parent in root.parents):
        raise OptionError(
            f"{printable(output)} would stand in a folder that is read, and be an input of the next run; name a folder "
            "elsewhere"
        )
