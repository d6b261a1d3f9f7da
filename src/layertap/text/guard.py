"""Calls into the tokenizers library, which raises bare exceptions and, on some damaged files, panics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from layertap.errors import LayertapError, TokenizerError, one_line

T = TypeVar("T")


def guarded(what: str, step: Callable[[], T], *, passing: tuple[type[Exception], ...] = ()) -> T:
    """Run a call into the library and turn its failures into `TokenizerError`.

    A panic of its Rust code arrives as a `PanicException`, which is no `Exception`.

    Args:
        what: what failed, for the message: a file and what was done with it.
        step: the call.
        passing: exceptions that the caller handles itself.

    Raises:
        TokenizerError: the library failed.
    """
    try:
        return step()
    except passing:
        raise
    except LayertapError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{what}: {one_line(error)}") from error
        raise
