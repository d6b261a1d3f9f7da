"""`InputSet`: the inputs of one run, each with its name, size and time of change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layertap.data.input import Input
from layertap.data.inputs.expansion import Expansion, FileEntry, has_known_ending, known_endings
from layertap.data.inputs.local import find_local, local_state
from layertap.data.inputs.remote import find_remote
from layertap.data.readers.options import ReadOptions
from layertap.data.readers.source import STANDARD_INPUT
from layertap.data.remote import RemotePlace, is_remote
from layertap.errors import InputError, OptionError, printable

HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input of a set.

    Attributes:
        name: path relative to the folder or pattern that stands for it (of a file that was named itself, the file
            name), with `/` between its parts; unique in the set.
        input: the input itself.
        size: bytes as stored.
        stamp: text that changes when the file is written to: the time of the last change in nanoseconds, or the etag
            of a remote file.
    """

    name: str
    input: Input
    size: int
    stamp: str

    def sha256(self) -> str:
        """Return the hexadecimal sha256 of the file as stored.

        Raises:
            InputError: the file cannot be read.
        """
        digest = hashlib.sha256()
        source = self.input.source
        try:
            with _remote(source).open() if is_remote(source) else Path(source).open("rb", buffering=0) as file:
                while part := file.read(HASHED_AT_ONCE):
                    digest.update(part)
        except OSError as error:
            raise InputError(f"{self.input.name}: cannot be read: {error.strerror or error}") from None
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Refuse a file that is not as it was when the set was made.

        Raises:
            InputError: the file has another size or time of change, or does not exist any more.
        """
        if _state(self.input.source) != (self.size, self.stamp):
            raise InputError(
                f"{self.input.name} changed while it was read; run again when nothing writes to it, or on a copy"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSet:
    """Inputs of one run, sorted by the bytes of their names.

    Attributes:
        files: the inputs.
        notes: sentences on files that folders and patterns hold and that were left out.
    """

    files: tuple[InputFile, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def resolve(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        format: str | None = None,  # noqa: A002 - the word of every tool of this kind
        options: ReadOptions | None = None,
    ) -> InputSet:
        """Find the files that paths stand for.

        Args:
            paths: files; folders, which stand for all files of a known ending below them; patterns with `*`, `?`,
                `[...]` or `**`. Each may be a URL: `hf://datasets/...`, `s3://...`, `gs://...`. Hidden files, and
                folders of features, are left out.
            format: format of all files, whatever their endings are; None stands for the one that each name says.
            options: options for reading all files.

        Returns:
            The files, sorted by the bytes of their names. A name is relative to the folder or pattern that was given,
            so that it does not depend on how, or beside which others, that is spelled.

        Raises:
            InputError: a path that does not exist or cannot be read, a folder or pattern without inputs, a name that is
                not UTF-8, a store that does not answer.
            OptionError: standard input, pipes and folders of features; a file that is named twice; two files of the
                same name; an unknown ending.
        """
        arguments = [os.fsdecode(os.fspath(path)) for path in ([paths] if isinstance(paths, str) else paths)]
        if not arguments:
            raise OptionError("no input is named; name files, folders or patterns")
        expansions = [_find(argument, any_ending=format is not None) for argument in arguments]
        _refuse_repetition(expansions)
        files = [
            InputFile(
                name=file.name,
                input=Input(source=file.source, format=format, options=options or ReadOptions()),
                size=file.size,
                stamp=file.stamp,
            )
            for own in expansions
            for file in own.files
        ]
        return cls(
            files=tuple(sorted(files, key=lambda file: file.name.encode())),
            notes=tuple(own.note for own in expansions if own.note is not None),
        )

    def __iter__(self) -> Iterator[InputFile]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files as stored."""
        return sum(file.size for file in self.files)


def _find(argument: str, *, any_ending: bool) -> Expansion:
    if argument == STANDARD_INPUT:
        raise OptionError(
            "standard input can be read once only, and a folder of features reads its inputs again; write it to a file "
            "first, and name that"
        )
    if not argument:
        raise OptionError("an input has an empty name; name files, folders or patterns")
    find = find_remote if is_remote(argument) else find_local
    expansion = find(argument, any_ending=any_ending)
    if not expansion.files:
        raise InputError(
            f"{expansion.argument}: there is no input here: no file whose name ends in {_endings()}; name the format "
            f"(--input-format) to read files of other endings" + (f" ({expansion.note})" if expansion.note else "")
        )
    for file in expansion.files:
        _check_name(file)
        if not (any_ending or has_known_ending(file.name)):
            raise OptionError(
                f"{expansion.argument}: the name does not say the format; name it (--input-format), or let the file "
                f"end in {_endings()}"
            )
    return expansion


def _remote(url: str | os.PathLike[str]) -> RemotePlace:
    return RemotePlace.of(os.fspath(url))


def _state(source: str | os.PathLike[str]) -> tuple[int, str]:
    """Return the size of a file in bytes, and a text that changes when the file is written to."""
    if not is_remote(source):
        return local_state(Path(source))
    entry = _remote(source).entry()
    if entry is None:
        raise InputError(f"{printable(source)}: no such file")
    return entry.size, entry.stamp


def _endings() -> str:
    return ", ".join(known_endings())


def _check_name(file: FileEntry) -> None:
    try:
        file.name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{printable(file.source)}: its name is not UTF-8, and features state the names of their inputs; rename it"
        ) from None


def _refuse_repetition(expansions: Sequence[Expansion]) -> None:
    """Refuse a file that two arguments stand for, and two files with the same name."""
    owners: dict[str, str] = {}
    names: dict[str, str] = {}
    for own in expansions:
        new: dict[str, str] = {}
        for file in own.files:
            if file.identity in owners:
                first = owners[file.identity]
                where = "twice" if first == own.argument else f"by {first} and by {own.argument}"
                raise OptionError(f"{printable(file.source)} is named {where}; name each input once")
            new[file.identity] = own.argument  # links in one folder may share a file
            if file.name in names:
                other = names[file.name]
                raise OptionError(
                    f"{other} and {printable(file.source)} would both be called {file.name!r} in the output; name the "
                    "folder that holds both, or a pattern in quotes, such as '*/a.txt'"
                )
            names[file.name] = printable(file.source)
        owners |= new
