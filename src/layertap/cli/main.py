"""`layertap`: the commands, and how they end."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from typing import Any, NoReturn

from layertap.cli.help import help_formatter
from layertap.cli.streams import drop_standard_output, prepare_streams
from layertap.cli.tables import print_message, print_note
from layertap.cli.versions import ShowVersions
from layertap.errors import LayertapError, UsageError, printable

INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141
"""128 and the number of the signal, as shells have it."""

OF_PATHS = (errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of the system about a path that the user gave, wherever it was first looked at."""

COMMANDS = (
    *("extract", "inspect", "explain", "status", "export"),
    *("probe", "explore", "fit", "finetune", "predict", "evaluate", "save", "serve", "verify"),
    "completion",
)
"""Names of all commands; each is a module of this package."""

DESCRIPTION = "Any layer of a text encoder (BERT, RoBERTa and their relatives) as features: name them, get just that."
EPILOG = """\
examples:
  layertap extract texts.txt -o vectors.parquet
  layertap extract reviews.csv -o out.parquet --text-column review --feature 'v = hidden_states[-4:].layer_mean.mean'
  layertap explain texts.txt --feature 'last_hidden_state.cls' --feature 'hidden_states[:].mean'
  layertap inspect sentence-transformers/all-MiniLM-L6-v2
  layertap probe reviews.csv --text-column review --label sentiment -o report.html
  layertap explore reviews.csv --text-column review --label sentiment -o page.html
  layertap fit labelled.csv --label sentiment -o sentiment.head --feature 'hidden_states[:].mean'
  layertap predict texts.txt --head sentiment.head -o predicted.jsonl
  layertap evaluate sentiment.head later.csv --label sentiment
  layertap finetune train.csv -o ./classifier --dev dev.csv --label sentiment
  layertap save 'hidden_states[4].mean.normalize' -o small/
  layertap serve --port 8080
  layertap verify ./my-checkpoint -o certificate.json
  layertap status features/
  layertap export features/ -o features.parquet
  layertap completion bash

`layertap COMMAND --help` lists a command's options."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are usage errors like all others, and name the nearest option."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse arguments; one that is unknown is refused before others are missed.

        Raises:
            UsageError: an option or an argument that the command does not have.
        """
        if self._subparsers is None:
            known = self._option_string_actions
            for text in takewhile(lambda text: text != "--", args or ()):
                name = text.partition("=")[0]
                if name.startswith("--") and name not in known and " " not in text:
                    self._refuse([name])
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return parsed, unknown

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        first = unknown[0]
        if not first.startswith("-"):
            self.error(f"unexpected: {' '.join(unknown)}")
        near = get_close_matches(first.partition("=")[0], self._option_string_actions, n=1)
        self.error(f"there is no option {first}" + (f"; did you mean {near[0]}?" if near else ""))

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would print."""
        raise UsageError(f"{message}{'' if message.endswith('?') else ';'} `{self.prog} --help` lists what there is")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, and return its exit code.

    Args:
        argv: arguments without the program's name; None: the process's own.

    Returns:
        The exit code: 0, 1 for failures, 2 for usage, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        # A killed job leaves no half file either: the same way out as Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        prepare_streams()
    try:
        with warnings_as_notes():
            try:
                code = _run(arguments)
            except SystemExit:  # --help and --version
                sys.stdout.flush()
                raise
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return _say("", "; ".join(["stopped", *_notes(stop)]), INTERRUPTED)
    except Exception as error:
        if _is_closed_pipe(error):
            # `| head` has seen enough.
            if argv is None:
                drop_standard_output()
            return PIPE_CLOSED
        if "--debug" in arguments:
            traceback.print_exc()
        if argv is None:
            drop_standard_output()
        return _say(
            "error",
            "\n".join([_in_words(error), *_notes(error)]),
            error.exit_code if isinstance(error, LayertapError) else 1,
        )
    return code or 0


def _run(arguments: Sequence[str]) -> int | None:
    """Run the command that the arguments name."""
    only = arguments[0] if arguments and arguments[0] in COMMANDS else None
    options = parser(only).parse_args(arguments)
    code: int | None = options.run(options)
    return code


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the whole command line, or of one command, without loading the modules of the others."""
    root = Parser(
        prog="layertap",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=help_formatter,
        allow_abbrev=False,
    )
    root.add_argument(
        "--version",
        action=ShowVersions,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="show the version, how the kernels were built and the libraries found, and exit",
    )
    root.set_defaults(run=_no_command)
    # With `prog` argparse makes no formatter of its own, which a terminal would load rich for.
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command", prog=root.prog)
    for name in COMMANDS if only is None else (only,):
        import_module(f"layertap.cli.{name}").add_to(commands)
    return root


def _no_command(_: argparse.Namespace) -> None:
    raise UsageError(
        f"name a command: {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}; `layertap --help` says what they do"
    )


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Show Python warnings as notes while entered."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print_note(message)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _say(kind: str, message: str, code: int) -> int:
    print_message(kind, message)
    return code


def _notes(error: BaseException) -> list[str]:
    """Return the notes that were added to an error on its way."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


def _in_words(error: Exception) -> str:
    if isinstance(error, LayertapError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "out of memory; a smaller --batch-tokens, a --max-length or pooled features need less"
    if isinstance(error, OSError) and error.errno in OF_PATHS and error.filename is not None:
        return f"{printable(error.filename)}: {error.strerror}"
    first = str(error).strip().splitlines()[:1]
    return f"{': '.join([type(error).__name__, *first])}\nthis is not meant to happen; run again with --debug for more"


def _is_closed_pipe(error: BaseException) -> bool:
    """Return whether a program downstream stopped reading standard output."""
    cause: BaseException | None = error
    seen: set[int] = set()  # `raise error from error` makes a ring
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            return True
        seen.add(id(cause))
        cause = cause.__cause__
    return False
