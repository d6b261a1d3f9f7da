"""`layertap extract`: texts in, a file of features out."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from layertap.cli.folder import add_folder_options, refuse_folder_options, run_folder_command
from layertap.cli.options import (
    add_command,
    add_engine_options,
    add_feature_options,
    add_model_options,
    features_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.streaming import add_output_options, add_reading_options, job_of

if TYPE_CHECKING:
    from layertap.cli.options import Commands

DESCRIPTION = """\
Computes features of every text of INPUT and writes them to OUTPUT, in the order of the input.

INPUT is txt (a text a line, or see --records), JSONL or JSON, CSV, TSV, Parquet, CoNLL or CoNLL-U; text
formats may be compressed (gzip, bzip2, xz, zstd). `-` is standard input. OUTPUT is Parquet, safetensors,
npy, npz or JSONL, as its name ends; `-` writes JSONL to standard output. It appears under its name when
it is whole.

An OUTPUT that ends with / is a folder of features: Parquet files of some thousand texts each, from any
number of files, folders and quoted patterns, also at hf://, s3:// and gs://. After a kill the same command
goes on, and new inputs are added."""
EPILOG = """\
examples:
  layertap extract texts.txt -o vectors.parquet
  layertap extract reviews.csv -o out.parquet --text-column review -f 'v = last_hidden_state.mean'
  layertap extract texts.jsonl -o layers.npz -f 'low = hidden_states[1].mean' -f 'top = hidden_states[-1].mean'
  layertap extract treebank.conllu -o words.parquet -f 'hidden_states[4].words(mean)'
  layertap extract glue.tsv -o glue.parquet --no-header --text-column col3 --quoting none
  layertap extract novel.txt -o novel.parquet --records file --long window
  layertap extract books.jsonl -o books.npz --long window -f 'last_hidden_state.mean'
  cat texts.txt | layertap extract - -o - -f 'last_hidden_state.cls.astype(float16)'
  layertap extract corpus/ 'more/**/*.jsonl.zst' -o features/ -f 'v = last_hidden_state.mean'
  layertap extract s3://bucket/corpus/ -o s3://bucket/features/ -f 'v = last_hidden_state.mean'"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "extract",
        run,
        summary="texts in, a file of features out",
        usage="layertap extract INPUT... -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a file, or -; for a folder also folders, patterns",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUTPUT", required=True, help="a file, - for standard output, or a folder/"
    )
    add_feature_options(parser)
    add_model_options(parser)
    add_reading_options(parser)
    add_engine_options(add_output_options(parser), "non_finite")
    add_running_options(parser)
    add_folder_options(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: what can be checked comes first, then the model, then the work.

    Raises:
        OptionError: options of a folder for a file, or the reverse; several inputs for a file.
    """
    from layertap.jobs.folder.job import is_folder_output

    if is_folder_output(options.output):
        run_folder_command(options)
    else:
        refuse_folder_options(options)
        options.input = options.inputs[0]
        _run_file(options)


def _run_file(options: argparse.Namespace) -> None:
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.engine.opening import open_reference
    from layertap.jobs.run import open_job

    started = time.perf_counter()
    limit_tokenizer_threads(options.threads)
    features, semantics, runtime = features_of(options), semantics_of(options), runtime_of(options)
    require_backend(runtime.backend)
    silence_downloads(options)
    job = job_of(options, features=features, also_read=map(str, stored_files(options.model)))
    with open_job(job) as opened:
        with uncollected():
            model = open_reference(reference_of(options))
            # Before the backend is loaded, which takes a second: does the model have these features?
            model.plan(features, semantics, runtime.rules)
            extractor = extractor_of(model, semantics, runtime)
        opened.forecast(extractor)
        ready = time.perf_counter()
        summary = opened.run(extractor, progress=not options.quiet)
    if not options.quiet:
        from layertap.cli.summary import print_summary

        print_summary(extractor, job, summary, starting=ready - started, running=time.perf_counter() - ready)
