"""Every error a user can meet.

    LayertapError
    |-- UsageError (ValueError)           what was asked cannot be run as asked        exit code 2
    |   |-- FeatureSyntaxError            a feature text that does not parse, with a caret
    |   |-- FeatureError                  a feature that this model or grammar cannot give
    |   `-- OptionError                   an option, or two that do not go together
    |-- ModelNotFoundError (OSError)      no such folder, package, hub id, or no network   exit code 1
    |-- CheckpointError (ValueError)      files are there and not usable                   exit code 1
    |   |-- ConfigError                   config.json: file, field, expected, found
    |   |   `-- UnsupportedModelError     a model that layertap knows it cannot run
    |   |-- WeightsError                  weights: file, key, expected, found
    |   |   `-- UntrainedPoolerError      the pooler is absent or was never trained
    |   `-- TokenizerError                tokenizer files, or ids that the model has no row for
    |-- InputError (ValueError)           a record that cannot be read: file, row, reason   exit code 1
    |-- OutputError (OSError)             a result that cannot be written                   exit code 1
    |-- BackendError (RuntimeError)       nothing here can run it: no torch, no such device exit code 1
    `-- NonFiniteError (ValueError)       NaN or infinity in a result, naming the records   exit code 1

`exit_code` is what the command line ends with.
"""

from __future__ import annotations

from unicodedata import category, east_asian_width


def printable(text: object) -> str:
    r"""Return a text with what a terminal would act on escaped: control characters, line breaks, lone surrogates.

    Messages hold names of files, which may hold all of these; `a\x1b[2J.txt` is shown as it stands here.
    """
    return "".join(
        character
        if character.isprintable() or category(character) == "Zs"
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def one_line(text: object, limit: int = 300) -> str:
    """Return a message of another library as one printable line of at most `limit` characters."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


class LayertapError(Exception):
    """Base of every error that layertap raises for a user."""

    exit_code = 1


class UsageError(LayertapError, ValueError):
    """Request that cannot be run as it was made; the message says what would work."""

    exit_code = 2


class FeatureSyntaxError(UsageError):
    """A feature text that does not parse.

    Attributes:
        text: the feature text as given.
        position: 0-based character where the trouble starts.
        reason: what was expected there, and the nearest valid spelling.
    """

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"{reason}\n{_caret(text, position)}")


def _caret(text: str, position: int, reach: int = 60) -> str:
    """Two lines: the text around a position, and a caret under it, wide characters counted as two columns."""
    begin, end = max(0, position - reach), position + reach
    before = "".join(c if c.isprintable() else "?" for c in text[begin:position])
    after = "".join(c if c.isprintable() else "?" for c in text[position:end])
    before = "..." + before if begin else before
    after = after + "..." if end < len(text) else after
    columns = sum(2 if east_asian_width(c) in "WF" else 1 for c in before)
    return f"  {before}{after}\n  {' ' * columns}^"


class FeatureError(UsageError):
    """A well-formed feature that this model, or the order of its steps, cannot give."""


class OptionError(UsageError):
    """An option with a value outside what is allowed, or two options that exclude each other."""


class ModelNotFoundError(LayertapError, OSError):
    """No such folder, installed package or hub id, or the hub cannot be reached."""


class CheckpointError(LayertapError, ValueError):
    """A checkpoint whose files are there and cannot be used."""


class ConfigError(CheckpointError):
    """`config.json` (or another JSON file of a checkpoint) says something impossible."""


class UnsupportedModelError(ConfigError):
    """A model that layertap recognises and does not run, with the reason."""


class WeightsError(CheckpointError):
    """A weight that is missing, damaged, of another shape, or not finite."""


class UntrainedPoolerError(WeightsError):
    """`pooler_output` asked of a checkpoint whose pooler is absent or was never trained."""


class TokenizerError(CheckpointError):
    """Tokenizer files that are missing or unusable, or that do not fit the model."""


class InputError(LayertapError, ValueError):
    """A record that cannot be read; the message names file, row and reason."""


class OutputError(LayertapError, OSError):
    """A result that cannot be written."""


class BackendError(LayertapError, RuntimeError):
    """No backend on this machine can run what was asked."""


class NonFiniteError(LayertapError, ValueError):
    """NaN or infinity in a result; the message names the records.

    Attributes:
        what: the feature, or the states that it is made of.
        rows: numbers of the records, as `Record.row` has them.
    """

    def __init__(self, message: str, *, what: str = "", rows: tuple[int, ...] = ()) -> None:
        self.what = what
        self.rows = rows
        super().__init__(message)
