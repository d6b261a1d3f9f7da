"""Folders of features on object stores: files are read by name, and written whole in one request.

An object store has no rename, no lock and no half-written file: an object appears when its request ends. A name that
must not be taken is written on condition that it is free, and the store is asked beforehand too, as some stores know no
such condition or ignore it; there, of two workers that write one shard in the same moment, the later one counts, with
the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from layertap.data.remote import RemotePlace, reason_of, remote_errors
from layertap.errors import InputError, LayertapError, OutputError, printable
from layertap.files import remove_file, scratch_folder

HASHED_AT_ONCE = 4 << 20

TAKEN = ("PreconditionFailed", "412")
CONFLICT = ("ConditionalRequestConflict", "OperationAborted", "409")
UNCONDITIONAL = ("NotImplemented", "501")
"""Codes of stores: the name is taken; another writer is at work on it; there are no conditional writes."""

CONFLICT_TRIES = 5
CONFLICT_WAIT = 0.2
"""Seconds before a write that met another one is tried again; each time twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFiles:
    """Read access to the files of a folder on an object store (`FolderFiles`).

    Attributes:
        root: place of the folder.
    """

    root: RemotePlace

    @property
    def name(self) -> str:
        """Name of the folder for messages."""
        return printable(self.root.url.rstrip("/"))

    def place(self, place: str) -> RemotePlace:
        """Return the place of a file of the folder."""
        return self.root.at(f"{self.root.path.rstrip('/')}/{place}")

    def read(self, place: str) -> bytes | None:
        """Return the content of a small file, or None if there is no such file.

        Raises:
            InputError: the file cannot be read.
        """
        own = self.place(place)
        with remote_errors(own.url):
            try:
                content: bytes = own.system.cat_file(own.path)
            except FileNotFoundError:
                return None
        return content

    def size(self, place: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file.

        Raises:
            InputError: the store does not answer, or refuses.
        """
        entry = self.place(place).entry()
        return None if entry is None else entry.size

    def sha256(self, place: str) -> str:
        """Return the hexadecimal sha256 of a file.

        Raises:
            OSError: the file cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self.place(place).open() as file:
                while part := file.read(HASHED_AT_ONCE):
                    digest.update(part)
        except InputError as error:
            raise OSError(str(error)) from None
        return digest.hexdigest()


class RemoteFolder:
    """Folder on an object store in which this process writes files beside others that do the same.

    It has the methods of `layertap.files.shared.SharedFolder`. Files that another function writes are staged on the
    local disk and sent whole. A context manager; at its end the staged files are removed.

    Args:
        root: place of the folder.

    Attributes:
        root: place of the folder.

    Raises:
        OutputError: layertap does not write to such places.
    """

    def __init__(self, root: RemotePlace) -> None:
        if not root.scheme.is_writable:
            raise OutputError(
                f"{printable(root.url)}: {root.scheme.name}:// is read only here; write to a local folder, s3:// or gs://"
            )
        self.root = root
        self._files = RemoteFiles(root=root)
        self._scratch = contextlib.ExitStack()
        self._staging: Path | None = None
        self._count = 0

    def __enter__(self) -> RemoteFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files that are staged on the local disk."""
        self._staging = None
        self._scratch.close()

    def make(self, *folders: str) -> None:
        """Create nothing: names with a slash need no folder on an object store."""

    def staged_place(self, name: str) -> Path:
        """Return a free path on the local disk, for a file that another function writes.

        Raises:
            OutputError: temporary files cannot be written.
        """
        if self._staging is None:
            self._staging = self._scratch.enter_context(scratch_folder(None, "layertap-shards"))
        self._count += 1
        return self._staging / f"{self._count}-{name}"

    def publish(self, staged: Path, place: str, *, replace_other: bool = False) -> bool:
        """Send a finished staged file, and give it its name in one step.

        Args:
            staged: path of the file, which is removed afterwards.
            place: the new name.
            replace_other: whether a file that has the name is replaced if its content differs.

        Returns:
            True if the file has got its name; False if another file has it.

        Raises:
            OutputError: the file cannot be sent.
        """
        with self.described(place):
            content = staged.read_bytes()
            is_named = self._put_new(place, content)
            if not is_named and replace_other and self._files.read(place) != content:
                self._put(place, content)
                is_named = True
            remove_file(staged)
            return is_named

    def write_new(self, place: str, content: bytes) -> bool:
        """Write a small file under a name that is not taken.

        Returns:
            True if the file has been written, False if a file has the name.

        Raises:
            OutputError: the file cannot be written.
        """
        with self.described(place):
            return self._put_new(place, content)

    def replace(self, place: str, content: bytes) -> None:
        """Write a small file, in place of an earlier one if there is one.

        Raises:
            OutputError: the file cannot be written; an earlier one is as it was.
        """
        with self.described(place):
            self._put(place, content)

    def remove(self, place: str) -> None:
        """Remove a file if it exists.

        Raises:
            OutputError: the file cannot be removed.
        """
        own = self._files.place(place)
        with self.described(place), contextlib.suppress(FileNotFoundError):
            own.system.rm_file(own.path)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder inside the shared folder; none if there is no such folder.

        Raises:
            OutputError: the folder cannot be listed.
        """
        own = self._files.place(folder)
        with self.described(folder):
            own.system.invalidate_cache()
            try:
                infos = own.system.ls(own.path, detail=True)
            except FileNotFoundError:
                return []
        return sorted(PurePosixPath(info["name"]).name for info in infos if info["type"] == "file")

    @contextlib.contextmanager
    def described(self, place: str = "") -> Iterator[None]:
        """Turn whatever a library raises into errors that name the folder, the file and the state of the others."""
        try:
            yield
        except LayertapError:
            raise
        except FileNotFoundError as error:
            raise self._fail(place, "there is no such bucket") from error
        except Exception as error:  # the libraries document no common class
            raise self._fail(place, reason_of(error)) from error

    def _fail(self, place: str, reason: str) -> OutputError:
        return OutputError(
            f"{self._files.name}/{place}: cannot be written: {reason}; what is finished stays, and the next run goes "
            "on from there"
        )

    def _put(self, place: str, content: bytes) -> None:
        own = self._files.place(place)
        own.system.pipe_file(own.path, content, **own.scheme.put_options)

    def _put_new(self, place: str, content: bytes) -> bool:
        """Write an object whose name is free, on that condition; return False if the name is taken."""
        own = self._files.place(place)
        if own.entry() is not None:  # some stores take the condition and ignore it
            return False
        for attempt in range(CONFLICT_TRIES):
            try:
                own.system.pipe_file(own.path, content, mode="create", **own.scheme.put_options)
            except FileExistsError:
                return False
            except Exception as error:  # the libraries document no common class
                code = _code_of(error)
                if code in TAKEN:
                    return False
                if code in UNCONDITIONAL:
                    break
                if code not in CONFLICT or attempt == CONFLICT_TRIES - 1:
                    raise
                time.sleep(CONFLICT_WAIT * 2**attempt)
            else:
                return True
        own.system.pipe_file(own.path, content, **own.scheme.put_options)
        return True


def _code_of(error: Exception) -> str:
    """Return the code of a store's answer, as the libraries hand it on, or an empty text."""
    if isinstance(error, NotImplementedError) or (isinstance(error, TypeError) and "mode" in str(error)):
        return UNCONDITIONAL[0]
    for own in (error, error.__cause__):
        response = getattr(own, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        code = getattr(own, "code", None)
        if code is not None:
            return str(code)
    return ""
