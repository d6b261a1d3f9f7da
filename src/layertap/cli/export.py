"""The command `layertap export`, which writes a folder of features to one file."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from layertap.cli.options import add_command
from layertap.cli.tables import print_facts
from layertap.file_formats import WRITE_FORMATS

if TYPE_CHECKING:
    from layertap.cli.options import Commands

DESCRIPTION = """\
Writes the features of a folder to one file: Parquet, safetensors, npy, npz or JSONL, as its name ends; `-` writes
JSONL to standard output. The records keep the order of the folder: inputs by name, new ones after those before.

Parquet and JSONL hold the ids and columns of the inputs, and the column `file` with the input of each record.
The other formats hold the row in its input, which several inputs may have."""
EPILOG = """\
examples:
  layertap export features/ -o features.parquet
  layertap export features/ -o vectors.npy
  layertap export features/ -o - | head -3"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="a folder of features in, one file out",
        usage="layertap export FOLDER/ -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER/", help="a folder of features")
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="a file, or - for standard output")
    parser.add_argument(
        "--output-format",
        choices=WRITE_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(WRITE_FORMATS)} (default: by the file's ending)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    parser.add_argument("--partial", action="store_true", help="export an unfinished folder as far as it is there")
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary; errors are shown")


def run(options: argparse.Namespace) -> None:
    """Write the file, and say how many records it has."""
    from layertap.jobs.folder.export import check_is_folder, export_folder

    written = export_folder(
        check_is_folder(options.folder),
        options.output,
        output_format_name=options.output_format,
        overwrite=options.overwrite,
        partial=options.partial,
    )
    if not options.quiet:
        where = "standard output" if os.fspath(options.output) == "-" else options.output
        print_facts([("records", f"{written:,} of {options.folder}"), ("output", where)])
