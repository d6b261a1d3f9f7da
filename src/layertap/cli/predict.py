"""`layertap predict`: texts in, what heads say of them out."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.extract import (
    STANDARD_STREAM,
    add_output_options,
    add_reading_options,
    add_running_options,
    check_size,
    checked_job,
    start,
    uncollected,
    write_output,
)
from layertap.cli.options import RULES, add_command, add_model_options
from layertap.cli.survey import count_records
from layertap.cli.units import aligned, in_shape
from layertap.errors import ModelNotFoundError, OptionError

if TYPE_CHECKING:
    from layertap.cli.extract import Job
    from layertap.cli.options import Commands
    from layertap.engine.opening import OpenedModel
    from layertap.learn.head import Head
    from layertap.learn.predicting import Predictor

DESCRIPTION = """\
Says what heads (`layertap fit`) make of every text of INPUT, in the order of the input: for a head NAME of
texts the columns NAME (the likeliest label) and NAME.scores (a probability a label), for one of words
NAME (a tag a word), NAME.scores (its probability) and NAME.entities (begin and end in characters, label,
text, score). Several heads and features come out of one pass through the model.

INPUT and OUTPUT are as in `layertap extract`. Labels are strings in Parquet and JSONL; in safetensors, npz
and npy, which hold numbers only, they are places in the list of labels that the provenance has."""
EPILOG = """\
examples:
  layertap predict texts.txt --head sentiment.head -o predicted.jsonl
  layertap predict tweets.conll --head ner.head -o entities.parquet
  layertap predict texts.csv --head a.head --head topic=b.head -o out.parquet -f 'v = last_hidden_state.mean'"""


def add_to(commands: Commands) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands,
        "predict",
        run,
        summary="texts in, what heads say of them out",
        usage="layertap predict INPUT --head HEAD -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="a file, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="a file, or - for standard output")
    parser.add_argument(
        "--head",
        metavar="HEAD",
        action="append",
        dest="heads",
        required=True,
        help="a folder that `layertap fit` made, or NAME=FOLDER to call its results otherwise; again for more",
    )
    parser.add_argument(
        "-f", "--feature", metavar="FEATURE", action="append", dest="features", help="a feature to write, too"
    )
    parser.add_argument(
        "--disable-rule",
        metavar="RULE",
        action="append",
        default=[],
        choices=RULES,
        help=f"leave one saving of the plan out: {', '.join(RULES)}; again for more",
    )
    add_model_options(parser)
    add_reading_options(parser)
    add_output_options(parser)
    add_running_options(parser)


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from layertap.learn.predicting import Predictor

    started = time.perf_counter()
    heads = [_head(text) for text in options.heads]
    _check_together(heads)
    first = heads[0]
    job = checked_job(options, first.semantics)
    if options.model is None:
        reference = replace(job.reference, name=first.model.name, revision=options.revision or first.model.revision)
        job = replace(job, reference=reference)
    with job.source.open() as reader:
        num_records = count_records(job.source, reader)
        types = reader.column_types
        with uncollected():
            opened = _opened(job, first)
            for head in heads:
                head.model.check(opened, head.name)
            predictor = Predictor(start(job, opened), heads, columns=job.format.holds_columns)
        taken = sorted(types.keys() & predictor.column_types.keys())
        if taken:
            raise OptionError(
                f"{taken[0]!r} is the name of a head and of a column of {job.source.source}; name the head otherwise "
                f"(--head other={taken[0]}), or name the columns to carry (--columns) without it"
            )
        check_size(job, predictor, num_records)
        ready = time.perf_counter()
        summary = write_output(job, predictor, reader, num_records, {**types, **predictor.column_types})
        ended = time.perf_counter()
        if not job.quiet:
            from layertap.cli.summary import report

            lines = report(
                predictor.extractor,
                job.features,
                summary,
                output=None if job.output == STANDARD_STREAM else Path(job.output),
                skipped=len(reader.errors),
                error_list=job.error_list,
                starting=ready - started,
                running=ended - ready,
                results=_results(job, predictor),
            )
            print("\n".join(lines), file=sys.stderr)


def _head(text: str) -> Head:
    from layertap.learn.head import Head

    name, equals, folder = text.partition("=")
    if not equals or Path(text).is_dir():
        return Head.load(text)
    if not name:
        raise OptionError(f"--head {text!r}: expected FOLDER or NAME=FOLDER")
    return replace(Head.load(folder), name=name)


def _opened(job: Job, head: Head) -> OpenedModel:
    from layertap.engine.opening import open_reference

    try:
        return open_reference(job.reference)
    except ModelNotFoundError as error:
        error.add_note(f"head {head.name!r} was fitted on it; --model says where it is now")
        raise


def _check_together(heads: list[Head]) -> None:
    """Refuses heads that cannot share one pass, before a model is opened."""
    first = heads[0]
    for head in heads[1:]:
        if head.model.sha256 != first.model.sha256:
            raise OptionError(
                f"heads {first.name!r} and {head.name!r} were fitted on different models ({first.model}; "
                f"{head.model}); run them one by one"
            )
        if head.semantics != first.semantics:
            raise OptionError(
                f"heads {first.name!r} and {head.name!r} were fitted with different options ({first.semantics}; "
                f"{head.semantics}); run them one by one"
            )


def _results(job: Job, predictor: Predictor) -> list[str]:
    plan = predictor.plan(job.features)
    rows: list[tuple[str, ...]] = [
        (name, "a label a text" if head.task == "text" else "a tag a word", f"on {head.feature}")
        for head in predictor.heads
        for name in [head.name]
    ]
    rows += [
        (schema.name, in_shape(schema, plan.unit_of(schema.name)), "")
        for schema in predictor.schema(job.features)
        if schema.name.removesuffix(".scale") in plan.features
    ]
    return aligned(rows, indent="")
