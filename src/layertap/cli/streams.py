"""Standard streams that are closed, full, or of an encoding without some characters."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from layertap.errors import OutputError
from layertap.files import reason


def prepare_streams() -> None:
    """Make the standard streams of this process safe to write to, before anything is written.

    A stream that the caller closed becomes one that refuses what is written (output) or drops it (errors); otherwise
    the first file that the process opens would take its number. What an encoding lacks is written escaped.
    """
    if sys.stdin is None:
        _occupy(0, os.O_RDONLY)
    if sys.stdout is None:
        _occupy(1, os.O_RDONLY)  # a write fails, as it would without a file
        sys.stdout = ResultStream(os.fdopen(1, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        encoding, lines = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = ResultStream(
            sys.stdout.detach(), encoding=encoding, errors="backslashreplace", line_buffering=lines
        )
    if sys.stderr is None:
        _occupy(2, os.O_WRONLY)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = MessageStream(sys.stderr)


class ResultStream(io.TextIOWrapper):
    """Text stream for results that says in words why it cannot be written."""

    def write(self, text: str) -> int:
        """Write a text to the stream.

        Raises:
            OutputError: the system refused.
        """
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(f"standard output: cannot be written: {reason(error)}") from error

    def flush(self) -> None:
        """Hand on what is buffered.

        Raises:
            OutputError: the system refused.
        """
        try:
            super().flush()
        except OSError as error:
            raise OutputError(f"standard output: cannot be written: {reason(error)}") from error


class MessageStream(io.TextIOBase):
    """Text stream for messages that drops what cannot be written.

    No run fails, and none ends with another exit code, because its messages have nowhere to go.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, as far as the stream takes it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, as far as the stream takes it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            # What stays in the buffer would be tried again at exit, and make the exit code 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream; the base class has an attribute that is None."""
        return self._stream.encoding


def drop_standard_output() -> None:
    """Discard what standard output still holds if it cannot be written: flushed at exit, it would fail once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _occupy(number: int, flags: int) -> None:
    """Open the null device under the number of a stream that is closed."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
