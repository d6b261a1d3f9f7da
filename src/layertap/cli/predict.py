"""`layertap predict`: texts in, what classifiers say of them out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.options import (
    add_command,
    add_engine_options,
    add_long_options,
    add_model_options,
    add_rule_option,
    features_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.streaming import add_file_arguments, add_output_options, add_reading_options, job_of
from layertap.engine.options import OPTIONS, ClassifierOptions, names_of
from layertap.errors import InputError, ModelNotFoundError, OptionError
from layertap.words import aligned

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.engine.opening import OpenedModel
    from layertap.engine.options import ModelReference, Semantics
    from layertap.jobs.job import Job
    from layertap.learn.heads.base import PredictionHead
    from layertap.learn.heads.head import Head
    from layertap.learn.heads.predictor import Predictor

DESCRIPTION = """\
Says what heads make of every text of INPUT, in the order of the input: for a head NAME of texts the columns
NAME (the likeliest label) and NAME.scores (a probability a label), for one of words NAME (a tag a word),
NAME.scores (its probability) and NAME.entities (begin and end in characters, label, text, score).

Heads are folders that `layertap fit` made, any number of them on one model in one pass; or a Hugging Face
checkpoint of a ForSequenceClassification or ForTokenClassification class (`layertap finetune` makes them, and
transformers), named by --model or --head. Where such a one gives any number of labels, NAME is a list; where it
gives a number, NAME is that number.

INPUT and OUTPUT are as in `layertap extract`. Labels are strings in Parquet and JSONL; in safetensors, npz
and npy, which hold numbers only, they are places in the list of labels that the provenance has."""
EPILOG = """\
examples:
  layertap predict texts.txt --head sentiment.head -o predicted.jsonl
  layertap predict tweets.conll --head ner.head -o entities.parquet
  layertap predict texts.csv --head a.head --head topic=b.head -o out.parquet -f 'v = last_hidden_state.mean'
  layertap predict texts.txt --model dslim/bert-base-NER --name ner -o entities.jsonl
  layertap predict texts.txt --head mood=./classifier -o predicted.jsonl"""

FIXED = tuple(name for name in names_of(ClassifierOptions) if OPTIONS[name].group == "semantics")
"""Options that change results; a head of `layertap fit` brings its own."""


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
    group = parser.add_argument_group("a checkpoint's own head (those of `layertap fit` have these fixed)")
    add_engine_options(
        group,
        "precision",
        unset=True,
        description="precision of weights and hidden states: float32, bfloat16, or float16 on CUDA",
    )
    add_engine_options(group, "max_length", "word_pattern", unset=True)
    add_long_options(parser, unset=True)
    add_reading_options(parser)
    add_output_options(parser)
    add_running_options(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHead:
    """Head that a checkpoint stores, before it is opened.

    Attributes:
        model: where it is.
        name: what its results are called, or None: by the model's name.
    """

    model: str
    name: str | None


def run(options: argparse.Namespace) -> None:
    """Run the command: heads and input are checked first, then the model, then the work is done."""
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.jobs.run import open_job
    from layertap.learn.heads.predictor import Predictor

    started = time.perf_counter()
    asked = _asked(options)
    limit_tokenizer_threads(options.threads)
    features, reference, semantics = features_of(options), _reference(options, asked), _semantics(options, asked)
    runtime = runtime_of(options)
    require_backend(runtime.backend)
    silence_downloads(options)
    folders = [_named_folder(text)[1] for text in options.heads or ()]
    job = job_of(options, features=features, also_read=[*folders, *map(str, stored_files(reference.name))])
    with open_job(job) as opened:
        with uncollected():
            model, heads = _opened(reference, asked)
            predictor = Predictor(extractor_of(model, semantics, runtime), heads, columns=job.format.holds_columns)
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
        print_summary(predictor.extractor, job, summary, starting=ready - started, running=running, results=results)


def _asked(options: argparse.Namespace) -> list[Head] | OwnHead:
    """Return the heads that the command line names: those of `fit`, or the one that a checkpoint stores."""
    named: list[str] = options.heads or []
    heads_given = [_head(text) for text in named]
    own = [head for head in heads_given if isinstance(head, OwnHead)]
    if not heads_given:
        if options.model is None:
            raise OptionError("name a head (--head), or a checkpoint that stores one (--model)")
        own = [OwnHead(model=options.model, name=options.name)]
    elif options.name is not None:
        raise OptionError(f"--name {options.name} goes with --model alone; with --head write NAME=FOLDER")
    elif own and len(heads_given) > 1:
        raise OptionError(f"--head {own[0].model} is a checkpoint with a head of its own, which runs without others")
    elif own and options.model is not None:
        raise OptionError(f"--head {own[0].model} is a checkpoint with a head of its own; leave out --model")
    if own:
        return own[0]
    heads = [head for head in heads_given if not isinstance(head, OwnHead)]
    given = next((name for name in FIXED if getattr(options, name) is not None), None)
    if given is not None:
        raise OptionError(
            f"--{given.replace('_', '-')} goes with the head that a checkpoint stores; a head of `layertap fit` runs "
            "with the options that it was fitted with"
        )
    _check_together(heads)
    return heads


def _head(text: str) -> Head | OwnHead:
    from layertap.learn.heads.files import JSON_FILE
    from layertap.learn.heads.head import Head

    name, folder = _named_folder(text)
    place = Path(folder)
    if (place / "config.json").is_file() and not (place / JSON_FILE).exists():
        return OwnHead(model=folder, name=name or None)
    try:
        head = Head.load(folder)
    except InputError as error:
        if not place.is_dir():
            error.add_note("a model of the Hugging Face hub that stores a head is named by --model")
        raise
    return replace(head, name=name) if name else head


def _named_folder(text: str) -> tuple[str, str]:
    """Split NAME=FOLDER; the name is empty where none is given."""
    name, equals, folder = text.partition("=")
    if not equals or Path(text).is_dir():
        return "", text
    if not name:
        raise OptionError(f"--head {text!r}: expected FOLDER or NAME=FOLDER")
    return name, folder


def _reference(options: argparse.Namespace, asked: list[Head] | OwnHead) -> ModelReference:
    """Return the model to open: the one named, or the one on which the heads were fitted."""
    given = reference_of(options)
    if isinstance(asked, OwnHead):
        return replace(given, name=asked.model)
    if options.model is not None:
        return given
    fitted_on = asked[0].reference
    return replace(
        given,
        name=fitted_on.name,
        revision=options.revision or fitted_on.revision,
        allow_pickle=options.allow_pickle or fitted_on.allow_pickle,
    )


def _semantics(options: argparse.Namespace, asked: list[Head] | OwnHead) -> Semantics:
    """Return the options with which heads were fitted, or those given for the head that a checkpoint stores."""
    from layertap.engine.options import Semantics

    if not isinstance(asked, OwnHead):
        return asked[0].semantics
    given = {name: getattr(options, name) for name in FIXED if getattr(options, name) is not None}
    return Semantics(untrained_pooler="use", **given)  # the head was trained on the pooler as it is


def _opened(reference: ModelReference, asked: list[Head] | OwnHead) -> tuple[OpenedModel, Sequence[PredictionHead]]:
    """Open the model, and return it with the heads, which are checked against it."""
    from layertap.engine.opening import open_reference
    from layertap.learn.heads.checkpoint import CheckpointHead
    from layertap.learn.heads.classifier import default_name

    if isinstance(asked, OwnHead):
        opened = open_reference(reference)
        name = asked.name or default_name(asked.model)
        return opened, [CheckpointHead.of(opened.files, name, allow_pickle=reference.allow_pickle)]
    try:
        opened = open_reference(reference)
    except ModelNotFoundError as error:
        error.add_note(f"head {asked[0].name!r} was fitted on it; --model says where it is now")
        raise
    for head in asked:
        head.check_model(opened.files)
    return opened, asked


def _renaming(asked: list[Head] | OwnHead, name: str) -> str:
    if not isinstance(asked, OwnHead):
        return f"--head other={name}"
    return "--name other" if asked.name is None or not Path(asked.model).is_dir() else f"--head other={asked.model}"


def _check_together(heads: list[Head]) -> None:
    """Refuse heads that cannot share one pass, before a model is opened."""
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
