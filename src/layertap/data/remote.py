"""Files that are not on a disk of this machine, reached through fsspec: `hf://`, `s3://`, `gs://`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from layertap.errors import InputError, LayertapError, OptionError, one_line, printable

URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

READ_AHEAD_BYTES = 4 << 20
"""Bytes that one request for a remote file asks for at least."""

STAMPS = ("ETag", "etag", "blob_id", "oid", "generation", "LastModified", "last_modified", "mtime", "created")
"""Entries of fsspec that change when a file is written to, best first."""

ANSWER_SECONDS = 10
"""Seconds in which a server has to accept a connection."""

QUIET_SECONDS = 20
"""Seconds that a connection may be silent. s3fs repeats a request five times, and botocore each of these once."""

LARGEST_PUT = 5 << 30
"""Bytes of the largest object that S3 takes in one request; larger ones are sent in parts, which appear together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Kind of remote places: a row of the table.

    Attributes:
        name: what stands before `://`.
        package: package that fsspec needs for it.
        extra: extra of layertap that installs the package, or None if layertap depends on it.
        is_writable: whether layertap writes there.
        options: options for fsspec, unless the user's configuration of fsspec has them.
        put_options: options of `pipe_file` with which it sends an object in one request.
    """

    name: str
    package: str
    extra: str | None
    is_writable: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    put_options: Mapping[str, Any] = field(default_factory=dict)


SCHEMES: dict[str, Scheme] = {
    row.name: row
    for row in (
        Scheme(name="hf", package="huggingface_hub", extra=None, is_writable=False),
        Scheme(
            name="s3",
            package="s3fs",
            extra="cloud",
            is_writable=True,
            options={
                "config_kwargs": {
                    "connect_timeout": ANSWER_SECONDS,
                    "read_timeout": QUIET_SECONDS,
                    "retries": {"total_max_attempts": 2, "mode": "standard"},
                }
            },
            put_options={"chunksize": LARGEST_PUT},
        ),
        Scheme(name="gs", package="gcsfs", extra="cloud", is_writable=True),
    )
}


def is_remote(where: str | os.PathLike[str]) -> bool:
    """Return whether a place is a URL and not a path."""
    return URL.match(os.fspath(where)) is not None


def scheme_of(url: str) -> Scheme:
    """Return the row of a URL's scheme.

    Raises:
        OptionError: layertap does not read from such places.
    """
    match = URL.match(url)
    name = "" if match is None else match.group(1).lower()
    if name not in SCHEMES:
        raise OptionError(
            f"{printable(url)}: {name}:// is not read; there are {', '.join(f'{known}://' for known in SCHEMES)} and "
            "local files; download it first, or mount it"
        )
    return SCHEMES[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEntry:
    """A remote file, as its file system describes it.

    Attributes:
        path: path in the file system, without a scheme.
        size: bytes.
        stamp: text that changes when the file is written to; its etag where there is one.
    """

    path: str
    size: int
    stamp: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> RemoteEntry:
        """Build the entry from what fsspec says about a file."""
        value = next((info[key] for key in STAMPS if info.get(key) is not None), "")
        if isinstance(value, datetime):  # a file system may give seconds elsewhere
            value = value.timestamp()
        return cls(path=str(info["name"]), size=int(info.get("size") or 0), stamp=str(value).strip('"'))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlace:
    """A place on a remote file system: a file, a folder, or a pattern for names.

    Attributes:
        url: the URL.
        scheme: row of its scheme.
        system: file system of fsspec.
        path: path in the file system.
    """

    url: str
    scheme: Scheme
    system: Any
    path: str

    def __str__(self) -> str:
        return self.url

    @classmethod
    def of(cls, url: str) -> RemotePlace:
        """Connect to the file system of a URL.

        Raises:
            OptionError: layertap does not read from such places.
            InputError: the package for it is not installed, or it cannot be set up.
        """
        scheme = scheme_of(url)
        with remote_errors(url):
            import fsspec

            configured = fsspec.config.conf.get(scheme.name, {})
            options = {name: value for name, value in scheme.options.items() if name not in configured}
            try:
                system, path = fsspec.core.url_to_fs(url, **options)
            except ImportError:
                extra = f", or 'layertap[{scheme.extra}]'" if scheme.extra else ""
                raise InputError(
                    f"{printable(url)}: {scheme.name}:// needs the package {scheme.package}; install it{extra}"
                ) from None
        return cls(url=url, scheme=scheme, system=system, path=str(path))

    def entry(self) -> RemoteEntry | None:
        """Return the file at this place, or None if there is no file.

        Raises:
            InputError: the file system does not answer, or refuses.
        """
        with remote_errors(self.url):
            self.system.invalidate_cache()
            try:
                info = self.system.info(self.path)
            except FileNotFoundError:
                return None
        return RemoteEntry.of(info) if info["type"] == "file" else None

    def entries(self) -> list[RemoteEntry]:
        """Return all files below this place, sorted by path.

        Raises:
            InputError: the file system does not answer, or refuses.
        """
        with remote_errors(self.url):
            self.system.invalidate_cache()
            infos = self.system.find(self.path, detail=True).values()
        return sorted((RemoteEntry.of(info) for info in infos if info["type"] == "file"), key=lambda entry: entry.path)

    def matches(self) -> list[RemoteEntry]:
        """Return all files whose path matches this pattern, sorted by path.

        Raises:
            InputError: the file system does not answer, or refuses.
        """
        with remote_errors(self.url):
            self.system.invalidate_cache()
            infos = self.system.glob(self.path, detail=True).values()
        return sorted((RemoteEntry.of(info) for info in infos if info["type"] == "file"), key=lambda entry: entry.path)

    def at(self, path: str) -> RemotePlace:
        """Return another place of the same file system."""
        return RemotePlace(
            url=f"{self.scheme.name}://{path.lstrip('/')}", scheme=self.scheme, system=self.system, path=path
        )

    def open(self) -> RemoteFile:
        """Open the file at this place for reading.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        entry = self.entry()
        if entry is None:
            raise InputError(f"{printable(self.url)}: no such file")
        with remote_errors(self.url):
            file = self.system.open(self.path, "rb", block_size=READ_AHEAD_BYTES)
        return RemoteFile(self, entry, file)


class RemoteFile(io.RawIOBase):
    """Remote file that is open for reading at any place; what fails is an `OSError`, whatever the library raises.

    Attributes:
        place: where it is.
        entry: size and stamp when it was opened.
    """

    def __init__(self, place: RemotePlace, entry: RemoteEntry, file: Any) -> None:
        self.place = place
        self.entry = entry
        self._file = file

    def readable(self) -> bool:
        """Return True: the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: any place of it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return the number of bytes."""
        with system_errors():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place of the file, and return it."""
        with system_errors():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the current place."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file and its connection."""
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn whatever a library for remote files raises into an error that names the URL and says why.

    Raises:
        InputError: anything but one of the project's own errors was raised.
    """
    try:
        yield
    except LayertapError:
        raise
    except Exception as error:  # the libraries document no common class
        raise InputError(f"{printable(url)}: cannot be read: {reason_of(error)}") from None


@contextmanager
def system_errors() -> Iterator[None]:
    """Turn whatever a library for remote files raises into an `OSError`, as reading a local file does.

    Raises:
        OSError: the reason is its only argument.
    """
    try:
        yield
    except Exception as error:  # the libraries document no common class
        raise OSError(reason_of(error)) from None


def reason_of(error: Exception) -> str:
    """Return the reason for a failure in one line, with what to do where credentials are missing."""
    name = type(error).__name__
    if name == "NoCredentialsError" or "locate credentials" in str(error):
        return "there are no credentials; configure them as for the store's own command line (aws, gcloud)"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket, repository or file"
    if isinstance(error, PermissionError):
        return f"permission is denied ({one_line(error, 150)})"
    return one_line(error, 200) or name
