"""Options that several commands have, and the values that the engine knows them by.

Options of the engine come from its table, `layertap.engine.options.OPTIONS`: names, allowed values, defaults and help.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layertap.cli.help import help_formatter
from layertap.cli.units import bytes_of
from layertap.engine.options import OPTIONS, ModelReference, Runtime, Semantics
from layertap.errors import OptionError
from layertap.features.rules import Rules
from layertap.file_formats import READ_FORMATS

if TYPE_CHECKING:
    from layertap.data.input import Input

    Commands = argparse._SubParsersAction[Any]

FLAGS = {"local_files_only": "--offline"}
"""Flags of engine options whose names on the command line differ from those in Python."""

METAVARS = {
    "cache_dir": "FOLDER",
    "precision": "P",
    "untrained_pooler": "WHAT",
    "non_finite": "WHAT",
    "long": "WHAT",
    "truncate_side": "SIDE",
    "word_pattern": "REGEX",
    "device": "DEVICE",
}
"""Metavars of engine options; others have N for whole numbers, else NAME."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    *,
    summary: str,
    usage: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Add the parser of a command, with the options that every command has."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=help_formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_engine_options(
    group: argparse._ArgumentGroup, *names: str, unset: bool = False, description: str | None = None
) -> None:
    """Add options of the engine to a group of arguments, as its table states them.

    Args:
        group: where to add them.
        names: keys of `OPTIONS`.
        unset: whether an option that is not given is None, to tell it from one that is given with its default.
        description: another description of them, or None for the table's.
    """
    for name in names:
        option = OPTIONS[name]
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        words = description or option.description
        default = option.default_description or option.default
        if option.type is bool:
            group.add_argument(flag, dest=name, action="store_true", help=words)
            continue
        group.add_argument(
            flag,
            dest=name,
            type=option.type,
            choices=option.choices or None,
            default=None if unset else option.default,
            metavar=METAVARS.get(name, "N" if option.type is int else "NAME"),
            help=words if default is None else f"{words} (default: {default})",
        )


def add_model_options(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Add options for the model, and for where it comes from."""
    group = parser.add_argument_group("model")
    named: dict[str, Any] = {
        "metavar": "MODEL",
        "help": "folder or Hugging Face hub id (default: sentence-transformers/all-MiniLM-L6-v2, "
        "from the package of the extra `minilm` where it is installed)",
    }
    if positional:
        group.add_argument("model", nargs="?", **named)
    else:
        group.add_argument("-m", "--model", **named)
    add_engine_options(group, *(name for name, option in OPTIONS.items() if option.group == "reference"))


def add_feature_options(
    parser: argparse.ArgumentParser,
    *,
    default: str = "sentence_embedding where the model declares it, else last_hidden_state.mean",
) -> None:
    """Add options for the features, and for what may change them; `default` describes what no feature stands for."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "-f",
        "--feature",
        metavar="FEATURE",
        action="append",
        dest="features",
        help=f"'name = expression' or an expression; again for more (default: {default})",
    )
    add_engine_options(group, "precision", "max_length", "untrained_pooler")
    add_rule_option(group)
    add_engine_options(group, "word_pattern")
    add_long_options(parser)


def add_rule_option(group: argparse._ActionsContainer) -> None:
    """Add the option that switches savings of the plan off."""
    group.add_argument(
        "--disable-rule",
        metavar="RULE",
        action="append",
        default=[],
        choices=Rules.names(),
        help=f"leave one saving of the plan out: {', '.join(Rules.names())}; again for more",
    )


def add_long_options(parser: argparse.ArgumentParser, *, unset: bool = False) -> None:
    """Add options for texts over the limit."""
    group = parser.add_argument_group("long texts")
    add_engine_options(group, "long", "truncate_side", "window", "overlap", unset=unset)


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add options for how the input is read, and return their group."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--input-format",
        choices=READ_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(READ_FORMATS)} (default: by the file's ending, txt for standard input)",
    )
    group.add_argument("--text-column", metavar="NAME", help="the column with the texts (default: text)")
    group.add_argument("--words-column", metavar="NAME", help="a column of lists of words, instead of texts")
    group.add_argument("--pair-column", metavar="NAME", help="the column with the second texts of pairs")
    group.add_argument("--spans-column", metavar="NAME", help="a column of lists of [begin, end) characters")
    add_layout_options(group)
    return group


def add_layout_options(group: argparse._ArgumentGroup) -> None:
    """Add options for how the input is written: dialect, encoding, what a record is."""
    group.add_argument(
        "--delimiter",
        metavar="CHAR",
        help="character between the fields of csv and tsv: one character, tab, comma, semicolon, pipe or space "
        "(default: as the file shows it)",
    )
    group.add_argument(
        "--quoting",
        choices=("none", "minimal"),
        metavar="HOW",
        help="quotation marks in csv and tsv: minimal (fields may stand in them) or none (they are characters like "
        "others; default: as the file shows it)",
    )
    group.add_argument(
        "--no-header",
        dest="header",
        action="store_false",
        help="the first row of csv and tsv is a row: its columns are col0, col1, ...",
    )
    group.add_argument(
        "--records",
        choices=("line", "paragraph", "file"),
        metavar="WHAT",
        help="a record of txt: line, paragraph (between empty lines) or file (default: line)",
    )
    group.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of a text file, as latin-1, gb18030 or utf-16 (default: by its byte order mark, else UTF-8)",
    )
    add_record_limit(group)


def input_of(options: argparse.Namespace, source: str | None = None, **more: Any) -> Input:
    """Build the input from parsed arguments.

    Args:
        options: parsed arguments.
        source: the file to read, or None for the argument INPUT.
        more: further arguments of `read_options`.
    """
    from layertap.data.input import Input, read_options

    return Input(
        source=options.input if source is None else source,
        format=options.input_format,
        options=read_options(
            text_column=options.text_column,
            words_column=options.words_column,
            pair_column=options.pair_column,
            spans_column=options.spans_column,
            **layout_of(options),
            **more,
        ),
    )


def layout_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `read_options` for how the input is written."""
    return {
        "delimiter": options.delimiter,
        "quoting": options.quoting,
        "header": options.header,
        "records": options.records,
        "encoding": options.encoding,
        "max_record_bytes": record_limit_of(options),
    }


def record_limit_of(options: argparse.Namespace) -> int | None:
    """Return the bytes that a record may have, or None for the default."""
    return None if options.max_record_size is None else bytes_of(options.max_record_size, "--max-record-size")


def add_record_limit(group: argparse._ArgumentGroup) -> None:
    """Add the option for the size of the longest record that is read."""
    group.add_argument(
        "--max-record-size",
        metavar="SIZE",
        help="a longer row is refused, as 1GB or 64MiB of the uncompressed input (default: 64MiB)",
    )


def features_of(options: argparse.Namespace) -> list[str] | None:
    """Return the feature texts, or None for the default feature.

    Raises:
        FeatureSyntaxError: a text that does not parse.
        OptionError: two features of one name.
    """
    if options.features is None:
        return None
    from layertap.features.parse import parse_named

    texts: list[str] = options.features
    names = [parse_named(text)[0] for text in texts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"--feature: {twice!r} is there twice; give one of them another name ('name = expression')")
    return texts


def reference_of(options: argparse.Namespace) -> ModelReference:
    """Build the reference to the model from parsed arguments."""
    return ModelReference(name=options.model, **_given(options, "reference"))


def semantics_of(options: argparse.Namespace) -> Semantics:
    """Build the options that change results from parsed arguments."""
    return Semantics(**_given(options, "semantics"))


def runtime_of(options: argparse.Namespace) -> Runtime:
    """Build the options that do not change results from parsed arguments."""
    return Runtime(**_given(options, "runtime"), rules=rules_of(options))


def rules_of(options: argparse.Namespace) -> Rules:
    """Return the savings that the plan makes; all of them where the command has no option for them."""
    return Rules.without(*getattr(options, "disable_rule", ()))


def _given(options: argparse.Namespace, group: str) -> dict[str, Any]:
    """Return the engine's options of a group that the command has, by name; others keep their defaults."""
    return {
        name: getattr(options, name)
        for name, option in OPTIONS.items()
        if option.group == group and hasattr(options, name)
    }


def limit_tokenizer_threads(number: int | None) -> None:
    """Check a number of threads, and give it to the tokenizers library before that starts threads of its own.

    Raises:
        OptionError: fewer than one.
    """
    if number is None:
        return
    if number < 1:
        raise OptionError(f"--threads {number}: expected a whole number of at least 1")
    available = os.cpu_count() or 1
    if number > available:
        raise OptionError(f"--threads {number}: this machine has {available} processors; more threads only wait")
    os.environ["RAYON_NUM_THREADS"] = str(number)
