"""Options that several commands have, and what the engine calls them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from layertap.backends.facts import BackendName, Precision
from layertap.cli.units import bytes_of
from layertap.errors import OptionError

if TYPE_CHECKING:
    from layertap.data.input import Input
    from layertap.engine.options import ModelReference, Runtime, Semantics
    from layertap.features.rules import Rules

    Commands = argparse._SubParsersAction[Any]

PRECISIONS: tuple[str, ...] = get_args(Precision)
BACKENDS: tuple[str, ...] = get_args(BackendName)
# Named here so that --help need not load the rooms that own them; a test holds them to those.
RULES = ("stop", "capture", "rows", "share", "fold", "heads")
READ_FORMATS = ("txt", "jsonl", "csv", "tsv", "parquet", "conll", "conllu")
WRITE_FORMATS = ("parquet", "safetensors", "npy", "npz", "jsonl")


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
    """A command's parser, with what every command has."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, and room for the names of options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def add_model_options(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Which model, and where from."""
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
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    group.add_argument("--cache-dir", metavar="FOLDER", help="the hub's cache, if not its usual place")
    group.add_argument("--offline", action="store_true", help="use the hub's cache, never ask the hub")
    group.add_argument(
        "--allow-pickle", action="store_true", help="read pytorch_model.bin where there is no safetensors file"
    )


def add_feature_options(
    parser: argparse.ArgumentParser,
    *,
    default: str = "sentence_embedding where the model declares it, else last_hidden_state.mean",
) -> None:
    """What to compute, and what may change it; `default` says what stands for no feature."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "-f",
        "--feature",
        metavar="FEATURE",
        action="append",
        dest="features",
        help=f"'name = expression' or an expression; again for more (default: {default})",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        metavar="P",
        help="of matrix products: float32, bfloat16, float16 (CUDA only), and on the native backend also float32-high "
        "(errors about 1e-4) and int8 (default: float32)",
    )
    group.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a sequence at most (default: each feature's own limit)"
    )
    group.add_argument(
        "--untrained-pooler",
        choices=("refuse", "use"),
        default="refuse",
        metavar="WHAT",
        help="pooler_output of a pooler that was stored and never trained: refuse or use (default: refuse)",
    )
    group.add_argument(
        "--disable-rule",
        metavar="RULE",
        action="append",
        default=[],
        choices=RULES,
        help=f"leave one saving of the plan out: {', '.join(RULES)}; again for more",
    )
    group.add_argument(
        "--word-pattern",
        metavar="REGEX",
        help="what a word of words(...) is (default: what stands between white space)",
    )
    add_long_options(parser)


def add_long_options(parser: argparse.ArgumentParser) -> None:
    """What becomes of texts over the limit."""
    group = parser.add_argument_group("long texts")
    group.add_argument(
        "--long",
        choices=("truncate", "window", "error"),
        default="truncate",
        metavar="WHAT",
        help="texts over the limit: truncate (cut and count them), window (run them in windows, of which each token is "
        "taken once) or error (default: truncate)",
    )
    group.add_argument(
        "--truncate-side",
        choices=("right", "left"),
        default="right",
        metavar="SIDE",
        help="which end is cut off: right or left (default: right)",
    )
    group.add_argument("--window", type=int, metavar="N", help="tokens a window (default: the limit)")
    group.add_argument(
        "--overlap", type=int, metavar="N", help="tokens that windows share (default: an eighth of the window)"
    )


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How to read the input."""
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
    add_record_limit(group)
    return group


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
            max_record_bytes=record_limit_of(options),
            **more,
        ),
    )


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
    """The feature texts, each checked to parse and no name twice; None: the default feature."""
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
    """Which model."""
    from layertap.engine.options import ModelReference

    return ModelReference(
        name=options.model,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.offline,
        allow_pickle=options.allow_pickle,
    )


def semantics_of(options: argparse.Namespace) -> Semantics:
    """What changes results."""
    from layertap.engine.options import Semantics

    return Semantics(
        precision=options.precision,
        max_length=options.max_length,
        untrained_pooler=options.untrained_pooler,
        non_finite=getattr(options, "non_finite", "raise"),
        long=options.long,
        truncate_side=options.truncate_side,
        window=options.window,
        overlap=options.overlap,
        word_pattern=options.word_pattern,
    )


def rules_of(options: argparse.Namespace) -> Rules:
    """The savings of the plan that are on."""
    from layertap.features.rules import Rules

    return Rules.without(*options.disable_rule)


def runtime_of(options: argparse.Namespace) -> Runtime:
    """What does not change results."""
    from layertap.engine.options import Runtime

    return Runtime(
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        instruction_set=options.instruction_set,
        batch_tokens=options.batch_tokens,
        rules=rules_of(options),
    )


def limit_tokenizer_threads(number: int | None) -> None:
    """Checks a number of threads, and gives it to the tokenizers library before that makes its own.

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
