"""`layertap`: the commands, and how they end."""

from __future__ import annotations

import argparse
import errno
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn, TextIO

from layertap.cli.streams import drop_standard_output, prepare_streams, shown
from layertap.errors import LayertapError, UsageError
from layertap.version import __version__

INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141
"""128 and the number of the signal, as shells have it."""

COMMANDS = ("extract", "inspect", "explain", "probe", "fit", "finetune", "predict", "serve", "verify")
"""Names of all commands; each is a module of this package."""

DESCRIPTION = "Any layer of a text encoder (BERT, RoBERTa and their relatives) as features: name them, get just that."
EPILOG = """\
examples:
  layertap extract texts.txt -o vectors.parquet
  layertap extract reviews.csv -o out.parquet --text-column review --feature 'v = hidden_states[-4:].layer_mean.mean'
  layertap explain texts.txt --feature 'last_hidden_state.cls' --feature 'hidden_states[:].mean'
  layertap inspect sentence-transformers/all-MiniLM-L6-v2
  layertap probe reviews.csv --text-column review --label sentiment -o report.html
  layertap fit labelled.csv --label sentiment -o sentiment.head --feature 'hidden_states[:].mean'
  layertap predict texts.txt --head sentiment.head -o predicted.jsonl
  layertap finetune train.csv -o ./classifier --dev dev.csv --label sentiment
  layertap serve --port 8080
  layertap verify ./my-checkpoint -o certificate.json

`layertap COMMAND --help` lists a command's options."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are usage errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would print."""
        raise UsageError(f"{message}; `{self.prog} --help` lists what there is")


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
        with warnings_as_notes(sys.stderr):
            try:
                code = _run(arguments)
            except SystemExit:  # --help and --version
                sys.stdout.flush()
                raise
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return _say("; ".join(["stopped", *_notes(stop)]), INTERRUPTED)
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
            "\n".join([f"error: {_in_words(error)}", *_notes(error)]),
            error.exit_code if isinstance(error, LayertapError) else 1,
        )
    return code or 0


def _run(arguments: Sequence[str]) -> int | None:
    """Run the command that the arguments name."""
    only = arguments[0] if arguments and arguments[0] in COMMANDS else None
    options, unknown = parser(only).parse_known_args(arguments)
    if unknown:
        command = f"layertap {options.command or ''}".strip()
        raise UsageError(f"unknown: {' '.join(unknown)}; `{command} --help` lists what there is")
    code: int | None = options.run(options)
    return code


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the whole command line, or of one command, without loading the modules of the others."""
    root = Parser(
        prog="layertap",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"layertap {__version__}")
    root.set_defaults(run=_no_command)
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS if only is None else (only,):
        import_module(f"layertap.cli.{name}").add_to(commands)
    return root


def _no_command(_: argparse.Namespace) -> None:
    raise UsageError(
        "name a command: extract, inspect, explain, probe, fit, finetune, predict, serve or verify; "
        "`layertap --help` says what they do"
    )


@contextmanager
def warnings_as_notes(stream: TextIO) -> Iterator[None]:
    """Show Python warnings as plain lines while entered."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(shown(f"layertap: note: {message}"), file=stream)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _say(message: str, code: int) -> int:
    text = shown(f"layertap: {message}")
    if sys.stderr.isatty():
        text = "\n".join(map(_wrapped, text.split("\n")))
    print(text, file=sys.stderr)
    return code


def _wrapped(line: str) -> str:
    """Wrap a line between words at the width of the terminal; an indented one shows a position, and stays."""
    columns = shutil.get_terminal_size().columns
    if len(line) <= columns or line.startswith(" "):
        return line
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


def _notes(error: BaseException) -> list[str]:
    """Return the notes that were added to an error on its way."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


def _in_words(error: Exception) -> str:
    if isinstance(error, LayertapError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "out of memory; a smaller --batch-tokens, a --max-length or pooled features need less"
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
