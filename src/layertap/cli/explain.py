"""`layertap explain`: what would run, and what it would cost; runs nothing."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from layertap.cli.options import (
    add_command,
    add_feature_options,
    add_input_options,
    add_model_options,
    features_of,
    input_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import add_backend_options, what_runs
from layertap.cli.tables import print_laid_out
from layertap.errors import OptionError
from layertap.words import counted

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.records import Record

ASSUMED_TOKENS = 64

DESCRIPTION = """\
Prints the plan of an extraction: the layers that run, what is captured and reduced where, estimated
operations and bytes, what each rule of the plan saves, and which backend would run it, and why. Runs no model
and needs no backend.

With an INPUT, estimates are for its texts; without one, for texts of 64 tokens. With -o FOLDER/, which is
not made, the command also forecasts the shards, bytes and hours of a folder of features; for the hours it
runs some of the first texts."""
EPILOG = """\
examples:
  layertap explain texts.txt
  layertap explain texts.jsonl -f 'last_hidden_state.cls' -f 'hidden_states[:].mean'
  layertap explain --model roberta-base -f 'hidden_states[-4:].layer_concat.mean' --disable-rule fold
  layertap explain corpus/ -o features/ -f 'last_hidden_state.mean'"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "explain",
        run,
        summary="what would run, and what it would cost",
        usage="layertap explain [INPUT...] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="a file, or - for standard input; files and folders with -o"
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="forecast what `layertap extract` to this folder would take"
    )
    parser.add_argument("--shard-records", type=int, metavar="N", help="texts of a file of the folder")
    add_feature_options(parser)
    add_model_options(parser)
    add_input_options(parser)
    add_backend_options(parser.add_argument_group("running"))


def run(options: argparse.Namespace) -> None:
    """Print the plan, and what its estimates are based on."""
    from layertap.engine.opening import open_reference
    from layertap.engine.repeats import repeated_share
    from layertap.engine.variants import lengths_of
    from layertap.features.explain import explain

    limit_tokenizer_threads(options.threads)
    features, semantics, runtime = features_of(options), semantics_of(options), runtime_of(options)
    options.input = _first_input(options)
    sample, num_records, source = _sample(options)
    opened = open_reference(reference_of(options))
    facts = opened.facts(semantics)
    plan = opened.plan(features, semantics, runtime.rules)
    lengths = lengths_of(opened.tokenizer, sample) if sample else []
    print_laid_out(
        explain(
            plan,
            facts,
            lengths=lengths or ASSUMED_TOKENS,
            num_records=num_records,
            precision=semantics.precision,
            backend=what_runs(opened, runtime.request(semantics.precision)),
            repeated=repeated_share(sample, lengths),
        )
    )
    print_laid_out(source)
    for note in opened.files.notes:
        print_laid_out(f"note: {note}")
    if options.output is not None:
        from layertap.cli.folder import print_forecast

        print_forecast(options, opened, features, semantics, runtime)


def _first_input(options: argparse.Namespace) -> str | None:
    """Return the input whose texts are looked at, or None; refuse arguments that do not go together."""
    if options.output is None:
        if len(options.inputs) > 1:
            raise OptionError(f"{len(options.inputs)} inputs are named; several go to a folder, as in -o features/")
        if options.shard_records is not None:
            raise OptionError("--shard-records goes with a folder of features; name it with -o FOLDER/")
        return options.inputs[0] if options.inputs else None
    from layertap.jobs.folder.job import is_folder_output

    if not options.inputs:
        raise OptionError("-o forecasts a folder of features for the texts of an INPUT; name one")
    if not is_folder_output(options.output):
        raise OptionError(f"-o {options.output}: a forecast is of a folder of features, whose name ends with /")
    from layertap.data.inputs import InputSet

    return os.fspath(next(iter(InputSet.resolve(options.inputs, options.input_format))).input.source)


def _sample(options: argparse.Namespace) -> tuple[tuple[Record, ...], int | None, str]:
    """Return records to take lengths from, their number in all, and a sentence on where both come from."""
    if options.input is None:
        return (), None, f"lengths: texts of {ASSUMED_TOKENS} tokens are assumed; name an input for its own"
    from layertap.data.survey import survey

    with input_of(options, columns=()).open() as reader:
        look = survey(reader)
    if not look.sample:
        return (), 0, f"lengths: {options.input} has no texts; texts of {ASSUMED_TOKENS} tokens are assumed"
    words = f"lengths: from the first {counted(len(look.sample), 'text')} of {options.input}"
    if look.num_records is None:
        words += "; how many there are in all is not known of an input that can be read once only"
    elif look.estimated:
        words += f"; the {look.num_records:,} in all are estimated from its size"
    return look.sample, look.num_records, words
