"""Ordered set of inputs: the files that paths and folders stand for, each with its name, size and time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layertap.data.formats import READ_FORMATS
from layertap.data.input import Input
from layertap.data.readers.base import ReadOptions
from layertap.data.readers.source import can_be_reread, name_of
from layertap.errors import InputError, OptionError, printable

HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input of a set.

    Attributes:
        name: path relative to the root of the set, with `/` between its parts.
        input: the input itself.
        size: bytes as stored.
        stamp: time of the last change, in nanoseconds, or another text that changes with the content.
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
        try:
            with Path(self.input.source).open("rb", buffering=0) as file:
                while part := file.read(HASHED_AT_ONCE):
                    digest.update(part)
        except OSError as error:
            raise InputError(f"{self.input.name}: cannot be read: {error.strerror or error}") from None
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Refuse a file that is not as it was when the set was made.

        Raises:
            InputError: the file has another size or time, or is not there any more.
        """
        size, stamp = _state(Path(self.input.source))
        if (size, stamp) != (self.size, self.stamp):
            raise InputError(
                f"{self.input.name} changed while it was read; run again when nothing writes to it, or on a copy"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSet:
    """Inputs of one run, sorted by the bytes of their names.

    Attributes:
        files: the inputs.
    """

    files: tuple[InputFile, ...]

    @classmethod
    def resolve(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        format: str | None = None,  # noqa: A002 - the word of every tool of this kind
        options: ReadOptions | None = None,
    ) -> InputSet:
        """Find the files that paths stand for.

        Args:
            paths: files, and folders, which stand for all files of a known ending in them.
            format: format of all files, or None for the one that each name says.
            options: options for reading all files.

        Raises:
            InputError: a path that does not exist, or a folder without inputs.
            OptionError: standard input, which is read once only; a file that is named twice.
        """
        options = options or ReadOptions()
        places: list[Path] = []
        for path in paths:
            if not can_be_reread(path):
                raise OptionError(
                    f"{name_of(path)}: standard input and pipes are read once only, and a folder of features reads its "
                    "inputs again; write it to a file first, and name that"
                )
            places += _files(Path(path))
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise OptionError(f"{printable(twice)} is among the inputs twice; name it once")
        arguments = [Path(path).absolute() for path in paths]
        root = os.path.commonpath([path if path.is_dir() else path.parent for path in arguments]) if arguments else ""
        files = []
        for place in places:
            size, stamp = _state(place)
            source = Input(source=place, format=format, options=options)
            name = Path(os.path.relpath(place, root)).as_posix()
            files.append(InputFile(name=name, input=source, size=size, stamp=stamp))
        return cls(files=tuple(sorted(files, key=lambda file: os.fsencode(file.name))))

    def __iter__(self) -> Iterator[InputFile]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _files(path: Path) -> list[Path]:
    absolute = path.absolute()
    if not absolute.is_dir():
        return [absolute]
    endings = tuple(suffix for row in READ_FORMATS.values() for suffix in row.suffixes)
    files = [
        file
        for file in absolute.rglob("*")
        if file.name.lower().removesuffix(".gz").endswith(endings) and file.is_file() and not file.name.startswith(".")
    ]
    if not files:
        raise InputError(f"{printable(path)}: there is no file in this folder whose ending is known")
    return files


def _state(path: Path) -> tuple[int, str]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file") from None
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None
    return status.st_size, str(status.st_mtime_ns)
