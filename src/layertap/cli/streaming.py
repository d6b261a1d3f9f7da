"""Options and steps that commands have in common which run a file through a model and write a file."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layertap.cli.options import add_input_options, input_of
from layertap.cli.units import bytes_of
from layertap.file_formats import WRITE_FORMATS

if TYPE_CHECKING:
    from layertap.jobs.job import Job


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments INPUT and OUTPUT."""
    parser.add_argument("input", metavar="INPUT", help="a file, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="a file, or - for standard output")


def add_reading_options(parser: argparse.ArgumentParser, *, all_columns: str = "all") -> None:
    """Add options for an input whose rows go to an output; `all_columns` describes the default of --columns."""
    group = add_input_options(parser)
    group.add_argument("--id-column", metavar="NAME", help="the column with the ids (default: id where there is one)")
    group.add_argument(
        "--columns",
        metavar="A,B",
        help=f"other columns to carry to Parquet or JSONL, '' for none (default: {all_columns})",
    )
    group.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        metavar="WHAT",
        help="rows that cannot be read: raise (stop) or skip, and list them in OUTPUT.errors.jsonl (default: raise)",
    )
    group.add_argument("--max-errors", type=int, metavar="N", help="rows that skip bears (default: any number)")


def add_output_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add options for the output, and return their group."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output-format",
        choices=WRITE_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(WRITE_FORMATS)} (default: by the file's ending)",
    )
    group.add_argument(
        "--details",
        metavar="A,B",
        help="what to write of tokens and words beside the features: "
        "token_ids, token_offsets, token_special, token_words, token_strings, word_offsets, word_texts, "
        "cut_tokens, num_windows, or all",
    )
    group.add_argument(
        "--max-output-size",
        metavar="SIZE",
        help="results that would take more are refused before anything runs, as 20GB or 500MB (default: 8GiB)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    return group


def job_of(options: argparse.Namespace, *, features: list[str] | None, also_read: Iterable[str]) -> Job:
    """Build the job from parsed arguments.

    Args:
        options: parsed arguments.
        features: feature texts, or None for the default.
        also_read: models and heads, which no output may replace.

    Raises:
        LayertapError: as `Job.checked` does.
    """
    from layertap.jobs.job import Job

    columns = None if options.columns is None else tuple(filter(None, map(str.strip, options.columns.split(","))))
    size = options.max_output_size
    return Job.checked(
        input_of(
            options,
            id_column=options.id_column,
            columns=columns,
            on_error=options.on_error,
            max_errors=options.max_errors,
        ),
        options.output,
        output_format_name=options.output_format,
        features=features,
        details=details_of(options.details),
        overwrite=options.overwrite,
        max_output_bytes=None if size is None else bytes_of(size, "--max-output-size"),
        also_read=also_read,
    )


def details_of(names: str | None) -> bool | list[str]:
    """Return the details that a value of `--details` names: a list, or whether all are asked for."""
    if names is None or names.strip() == "all":
        return names is not None
    return [name.strip() for name in names.split(",")]
