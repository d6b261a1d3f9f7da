"""`layertap predict`: texts in, what classifiers say of them out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.heads import (
    OwnHead,
    add_own_head_options,
    asked_heads,
    named_folder,
    open_heads,
    reference_to,
    semantics_for,
)
from layertap.cli.options import (
    add_command,
    add_model_options,
    add_rule_option,
    features_of,
    limit_tokenizer_threads,
    runtime_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.streaming import add_file_arguments, add_output_options, add_reading_options, job_of
from layertap.errors import OptionError
from layertap.words import aligned, counted

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.engine.summary import RunSummary
    from layertap.jobs.job import Job
    from layertap.learn.heads.base import PredictionHead
    from layertap.learn.heads.head import Head
    from layertap.learn.heads.predictor import Predictor, TextColumns

DESCRIPTION = """\
Says what heads make of every text of INPUT, in the order of the input: for a head NAME of texts the columns
NAME (the likeliest label) and NAME.scores (a probability a label), for one of words NAME (a tag a word),
NAME.scores (its probability) and NAME.entities (begin and end in characters, label, text, score). A word that
the model did not see, as it has no token or was cut off, has no tag (null). Texts and words are written beside the
predictions, with all other columns of INPUT, unless --columns names what to carry.

Heads are folders that `layertap fit` made, any number of them on one model in one pass; or a Hugging Face
checkpoint of a ForSequenceClassification or ForTokenClassification class (`layertap finetune` makes them, and
transformers), named by --model or --head. Where such a one gives any number of labels, NAME is a list; where it
gives a number, NAME is that number.

INPUT and OUTPUT are as in `layertap extract`. Labels are strings in Parquet and JSONL; in safetensors, npz
and npy, which hold numbers only, they are places in the list of labels that the provenance has, or -1 for no tag."""
EPILOG = """\
examples:
  layertap predict texts.txt --head sentiment.head -o predicted.jsonl
  layertap predict tweets.conll --head ner.head -o entities.parquet
  layertap predict texts.csv --head a.head --head topic=b.head -o out.parquet -f 'v = last_hidden_state.mean'
  layertap predict texts.txt --model dslim/bert-base-NER --name ner -o entities.jsonl
  layertap predict texts.txt --head mood=./classifier -o predicted.jsonl"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "predict",
        run,
        summary="texts in, what classifiers say of them out",
        usage="layertap predict INPUT (--head HEAD | --model MODEL) -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--head",
        metavar="HEAD",
        action="append",
        dest="heads",
        help="a folder that `layertap fit` made, or a checkpoint's with a head of its own, or NAME=FOLDER to call its "
        "results otherwise; again for more of `fit` (default: the head that MODEL stores)",
    )
    parser.add_argument(
        "--name", help="what the results of the head that MODEL stores are called (default: the model's name)"
    )
    parser.add_argument(
        "-f", "--feature", metavar="FEATURE", action="append", dest="features", help="a feature to write, too"
    )
    add_rule_option(parser)
    add_model_options(parser)
    add_own_head_options(parser)
    add_reading_options(parser, all_columns="all, and the texts and words")
    add_output_options(parser)
    add_running_options(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: heads and input are checked first, then the model, then the work is done."""
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.jobs.run import open_job
    from layertap.learn.heads.predictor import Predictor

    started = time.perf_counter()
    asked = asked_heads(options)
    limit_tokenizer_threads(options.threads)
    features, reference, semantics = features_of(options), reference_to(options, asked), semantics_for(options, asked)
    runtime = runtime_of(options)
    require_backend(runtime.backend)
    silence_downloads(options)
    folders = [named_folder(text)[1] for text in options.heads or ()]
    job = job_of(options, features=features, also_read=[*folders, *map(str, stored_files(reference.name))])
    with open_job(job) as opened:
        with uncollected():
            model, heads = open_heads(reference, asked)
            predictor = Predictor(
                extractor_of(model, semantics, runtime),
                heads,
                columns=job.format.holds_columns,
                texts=_text_columns(options, heads, taken=opened.column_types),
            )
        taken = sorted(opened.column_types.keys() & predictor.column_types.keys())
        if taken:
            raise OptionError(
                f"{taken[0]!r} is the name of a head and of a column of {job.source.name}; name the head otherwise "
                f"({_renaming(asked, taken[0])}), or name the columns to carry (--columns) without it"
            )
        opened.forecast(predictor)
        ready = time.perf_counter()
        summary = opened.run(predictor, progress=not options.quiet)
    if not options.quiet:
        from layertap.cli.summary import print_summary

        running = time.perf_counter() - ready
        results = _results(job, predictor)
        print_summary(
            predictor.extractor,
            job,
            summary,
            starting=ready - started,
            running=running,
            results=results,
            notes=_untagged(heads, summary),
        )


def _text_columns(
    options: argparse.Namespace, heads: Sequence[PredictionHead], *, taken: Collection[str]
) -> TextColumns | None:
    """Return the columns that carry texts and words, unless --columns lists what to carry."""
    from layertap.learn.heads.predictor import TextColumns

    if options.columns is not None:
        return None
    words = options.words_column
    if words is None and any(head.task == "words" for head in heads):
        words = "words"
    columns = TextColumns(text=options.text_column or "text", words=words, pair=options.pair_column)
    return columns.without([*taken, *(head.name for head in heads)])


def _untagged(heads: Sequence[PredictionHead], summary: RunSummary) -> list[str]:
    """Return a note on words that have no tag."""
    number = summary.empty_words + summary.cut_words
    if not number or all(head.task == "text" for head in heads):
        return []
    return [f"{counted(number, 'word')} without a token, or cut off: no tag, and in no entity"]


def _renaming(asked: list[Head] | OwnHead, name: str) -> str:
    if not isinstance(asked, OwnHead):
        return f"--head other={name}"
    return "--name other" if asked.name is None or not Path(asked.model).is_dir() else f"--head other={asked.model}"


SAYS = {"label": "a label a text", "labels": "labels a text", "number": "a number a text"}


def _results(job: Job, predictor: Predictor) -> list[str]:
    plan = predictor.plan(job.features)
    rows: list[tuple[str, ...]] = [
        (head.name, SAYS[head.answer] if head.task == "text" else "a tag a word", f"on {head.feature}")
        for head in predictor.heads
    ]
    rows += [
        (schema.name, f"{schema.described} a text", "")
        for schema in predictor.schema(job.features)
        if schema.name.removesuffix(".scale") in plan.features
    ]
    return aligned(rows, indent="")
