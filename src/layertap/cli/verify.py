"""The command `layertap verify`, which compares a model's outputs with transformers on this machine."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.options import (
    add_command,
    add_layout_options,
    add_model_options,
    layout_of,
    limit_tokenizer_threads,
    reference_of,
)
from layertap.cli.running import silence_downloads
from layertap.cli.tables import print_laid_out
from layertap.engine.options import OPTIONS
from layertap.engine.progress import status_on
from layertap.errors import BackendError, OptionError
from layertap.file_formats import READ_FORMATS
from layertap.terminal import is_terminal

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.verify.comparison import Texts

DESCRIPTION = """\
Compares every hidden state (the last one also before the final norm, if the model has one) and the pooler's output with
transformers in float64, on every backend, device and precision of this machine. Texts are run packed together, alone
and shuffled. Token ids are compared, too.

For each output, prints the largest |error| over the output's RMS and the smallest cosine of two vectors, the same
figures for transformers itself in that precision, and whether they are within bounds. The bound in float32 is an error
of 2e-5 (1e-4 for 24 layers or more), or 1.5 times the error of transformers if that is larger; in float32-high it is 25
times as large. The bound in bfloat16 and float16 is a cosine of 0.999, in int8 of 0.99. The native backend must give
the same bits for texts alone, shuffled and packed together.
Needs no network for a model on this machine. The exit code is 1 if a figure is out of bounds."""
EPILOG = """\
examples:
  layertap verify
  layertap verify bert-base-uncased -o certificate.json
  layertap verify ./my-checkpoint --input my-texts.txt --precision float32"""


def add_to(commands: Commands) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands,
        "verify",
        run,
        summary="compare a model's outputs with transformers",
        usage="layertap verify [MODEL] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the certificate to this file, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the verdict")
    add_model_options(parser, positional=True)
    group = parser.add_argument_group("texts")
    group.add_argument("--input", metavar="FILE", help="texts to compare on (default: built-in ones, in 15 languages)")
    group.add_argument(
        "--input-format",
        choices=READ_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(READ_FORMATS)} (default: by the file's ending, txt for standard input)",
    )
    group.add_argument("--text-column", metavar="NAME", help="the column with the texts (default: text)")
    add_layout_options(group)
    group.add_argument(
        "--max-texts",
        type=int,
        default=200,
        metavar="N",
        help="compare on the first N texts of the input (default: 200)",
    )
    group.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="maximum number of tokens of a text (default: the model's limit, at most 1,024)",
    )
    group = parser.add_argument_group("running")
    group.add_argument(
        "--backend",
        action="append",
        choices=[name for name in OPTIONS["backend"].choices if name != "auto"],
        metavar="NAME",
        help="compare only this backend, native or torch; may be repeated (default: all that can run the model)",
    )
    group.add_argument(
        "--precision",
        action="append",
        choices=OPTIONS["precision"].choices,
        metavar="P",
        help="compare only this precision; may be repeated (default: all that a backend has)",
    )
    group.add_argument(
        "--device",
        action="append",
        metavar="NAME",
        help="compare only this device; may be repeated (default: all of this machine)",
    )
    group.add_argument(
        "--threads", type=int, metavar="N", help="number of processor threads (default: chosen by the backend)"
    )


def run(options: argparse.Namespace) -> int:
    """Runs `layertap verify` with parsed options; returns 1 if a figure is out of bounds."""
    from layertap.checkpoints.source import stored_files
    from layertap.cli.certificate_card import in_lines, verdict
    from layertap.engine.opening import open_reference
    from layertap.files import check_place, refuse_overlap, write_file
    from layertap.verify.comparison import available_setups, runnable, verify
    from layertap.verify.reference import require_transformers

    limit_tokenizer_threads(options.threads)
    asked = available_setups(options.device, options.precision, options.backend)
    silence_downloads(options)
    require_transformers()
    output = None if options.output is None else Path(options.output)
    if output is not None:
        check_place(output, overwrite=options.overwrite)
        sources = [] if options.input is None else [options.input]
        refuse_overlap([*sources, *stored_files(options.model)], {"the certificate": output})
    texts = _texts(options)
    opened = open_reference(reference_of(options))
    setups, refused = runnable(opened, asked)
    if not setups or (options.backend and refused):
        raise BackendError("; ".join(refused.values()))
    if options.threads is not None:
        from layertap.backends.here import set_num_threads

        set_num_threads(options.threads)
    with status_on(sys.stderr, shown=not options.quiet and is_terminal(sys.stderr)) as on_step:
        certificate = verify(
            opened, setups, texts=texts, max_length=options.max_length, threads=options.threads, on_step=on_step
        )
    print_laid_out("\n".join([verdict(certificate)] if options.quiet else in_lines(certificate, refused)))
    if output is not None:
        write_file(output, certificate.to_json().encode("utf-8", "replace"), overwrite=options.overwrite)
    return 0 if certificate.passed else 1


def _texts(options: argparse.Namespace) -> Texts:
    """Reads the texts of `--input`; without that option, selects the built-in ones."""
    from layertap.data.input import Input, read_options
    from layertap.verify.comparison import Texts

    if options.max_texts < 1:
        raise OptionError(f"--max-texts {options.max_texts}: expected a whole number of at least 1")
    if options.input is None:
        if options.input_format or options.text_column:
            raise OptionError("--input-format and --text-column describe how to read --input; pass --input, too")
        return Texts()
    source = Input(
        source=options.input,
        format=options.input_format,
        options=read_options(text_column=options.text_column, columns=(), **layout_of(options)),
    )
    with source.open() as reader:
        texts = tuple(record.text for record in islice(reader, options.max_texts))
    return Texts(source="standard input" if options.input == "-" else Path(options.input).name, texts=texts)
