"""`layertap extract`: texts in, a file of features out."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.options import (
    WRITE_FORMATS,
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
from layertap.cli.running import add_running_options, extractor_of
from layertap.cli.units import bytes_of
from layertap.errors import OptionError, OutputError
from layertap.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from layertap.cli.options import Commands
    from layertap.data import Input, Reader, WriteFormat, Writer
    from layertap.engine.extractor import Extractor
    from layertap.engine.forecast import Forecast
    from layertap.engine.options import ModelReference, Runtime, Semantics
    from layertap.engine.summary import RunSummary
    from layertap.learn.heads.predictor import Predictor

STANDARD_STREAM = "-"

FORECAST_CHARACTERS = 64
"""Characters a token, more than which a forecast does not look at."""

FORECAST_SAMPLE = 1 << 21
"""Characters of the first texts that a forecast tokenizes, a second's work."""

DESCRIPTION = """\
Computes features of every text of INPUT and writes them to OUTPUT, in the order of the input.

INPUT is txt (a text a line), JSONL, CSV, TSV, Parquet, CoNLL or CoNLL-U; `-` is standard input. OUTPUT
is Parquet, safetensors, npy, npz or JSONL, as its name ends; `-` writes JSONL to standard output. It
appears under its name when it is whole."""
EPILOG = """\
examples:
  layertap extract texts.txt -o vectors.parquet
  layertap extract reviews.csv -o out.parquet --text-column review -f 'v = last_hidden_state.mean'
  layertap extract texts.jsonl -o layers.npz -f 'low = hidden_states[1].mean' -f 'top = hidden_states[-1].mean'
  layertap extract treebank.conllu -o words.parquet -f 'hidden_states[4].words(mean)'
  layertap extract books.jsonl -o books.npz --long window -f 'last_hidden_state.mean'
  cat texts.txt | layertap extract - -o - -f 'last_hidden_state.cls.astype(float16)'"""


def add_to(commands: Commands) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands,
        "extract",
        run,
        summary="texts in, a file of features out",
        usage="layertap extract INPUT -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="a file, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="a file, or - for standard output")
    add_feature_options(parser)
    add_model_options(parser)
    add_reading_options(parser)
    group = add_output_options(parser)
    group.add_argument(
        "--non-finite",
        choices=("raise", "keep"),
        default="raise",
        metavar="WHAT",
        help="NaN or infinity in a result: raise (stop) or keep (default: raise)",
    )
    add_running_options(parser)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How to read an input whose rows go to an output."""
    group = add_input_options(parser)
    group.add_argument("--id-column", metavar="NAME", help="the column with the ids (default: id where there is one)")
    group.add_argument(
        "--columns", metavar="A,B", help="other columns to carry to the output, '' for none (default: all)"
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
    """What to write, and how."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command line, checked as far as that goes without the input and the model.

    Attributes:
        features: feature texts, or None: the default feature.
        details: what to write beside them.
        reference: which model.
        semantics, runtime: how to run it.
        source: the input.
        output: the file to make, or `-`.
        format: of the output.
        overwrite: whether it may replace what is there.
        quiet: whether nothing is said but errors.
        max_output_bytes: results may take this much, or None: the default.
    """

    features: list[str] | None
    details: tuple[str, ...]
    reference: ModelReference
    semantics: Semantics
    runtime: Runtime
    source: Input
    output: str
    format: WriteFormat
    overwrite: bool
    quiet: bool
    max_output_bytes: int | None

    @property
    def error_list(self) -> Path:
        """The file that lists the rows left out."""
        from layertap.data.formats import output_file
        from layertap.data.writers.companions import error_list_place

        return error_list_place(output_file(self.output) if Path(self.output).is_symlink() else Path(self.output))


def run(options: argparse.Namespace) -> None:
    """Runs the command: what can be checked comes first, then the model, then the work."""
    from layertap.data.survey import count_records
    from layertap.engine.opening import open_reference

    started = time.perf_counter()
    job = checked_job(options)
    with job.source.open() as reader:
        num_records = count_records(reader)
        column_types = reader.column_types
        with uncollected():
            opened = open_reference(job.reference)
            # Before the backend is loaded, which takes a second: does the model have these features?
            opened.plan(job.features, job.semantics, job.runtime.rules)
            extractor = extractor_of(opened, job.semantics, job.runtime)
        check_size(job, extractor, reader, num_records)
        ready = time.perf_counter()
        summary = write_output(job, extractor, reader, num_records, column_types)
        ended = time.perf_counter()
        if not job.quiet:
            from layertap.cli.summary import report

            lines = report(
                extractor,
                job.features,
                summary,
                output=None if job.output == STANDARD_STREAM else Path(job.output),
                skipped=len(reader.errors),
                error_list=job.error_list,
                starting=ready - started,
                running=ended - ready,
            )
            print("\n".join(lines), file=sys.stderr)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: of what imports make little is garbage, and looking takes a tenth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def checked_job(
    options: argparse.Namespace, semantics: Semantics | None = None, model: str | None = None, heads: Sequence[str] = ()
) -> Job:
    """Check a command line as far as that goes without the model.

    Args:
        options: parsed arguments.
        semantics: options that change results, or None: as the arguments say.
        model: the model, or None: as the arguments say.
        heads: folders of heads, which no output may replace.
    """
    from layertap.backends.choice import require_backend
    from layertap.data import check_output

    limit_tokenizer_threads(options.threads)
    features = features_of(options)
    semantics = semantics or semantics_of(options, non_finite=options.non_finite)
    runtime = runtime_of(options)
    require_backend(runtime.backend)
    if options.quiet:
        # The hub's client draws bars of its own, and looks here when it is imported.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    format_ = check_output(
        options.output,
        format=options.output_format,
        overwrite=options.overwrite,
        error_list=options.on_error == "skip",
    )
    job = Job(
        features=features,
        details=_details(options.details),
        reference=reference_of(options) if model is None else replace(reference_of(options), name=model),
        semantics=semantics,
        runtime=runtime,
        source=_source(options, format_),
        output=options.output,
        format=format_,
        overwrite=options.overwrite,
        quiet=options.quiet,
        max_output_bytes=None
        if options.max_output_size is None
        else bytes_of(options.max_output_size, "--max-output-size"),
    )
    check_job_places(job, heads)
    return job


def _details(names: str | None) -> tuple[str, ...]:
    from layertap.engine.details import checked_names

    if names is None:
        return ()
    return checked_names(True if names.strip() == "all" else [name.strip() for name in names.split(",")])


def _source(options: argparse.Namespace, format_: WriteFormat) -> Input:
    columns = None if options.columns is None else tuple(filter(None, map(str.strip, options.columns.split(","))))
    if not format_.holds_columns:
        if columns:
            raise OptionError(
                f"--columns {options.columns}: {format_.name} holds no other columns; parquet and jsonl do"
            )
        columns = ()
    if not format_.holds_rows:
        if options.id_column is not None:
            raise OptionError(f"--id-column {options.id_column}: {format_.name} holds no ids; npz and the others do")
        if options.on_error == "skip":
            raise OptionError(
                f"--on-error skip leaves rows out, and {format_.name} has no place for the numbers of the others; "
                "npz and the others do"
            )
    return input_of(
        options,
        id_column=options.id_column,
        columns=columns,
        on_error=options.on_error,
        max_errors=options.max_errors,
    )


def check_job_places(job: Job, heads: Sequence[str] = ()) -> None:
    """Refuse places where something stands that the run reads."""
    from layertap.checkpoints.source import stored_files
    from layertap.data.formats import output_places
    from layertap.files import refuse_overlap

    if job.output == STANDARD_STREAM and job.source.options.on_error == "skip":
        raise OptionError("--on-error skip lists rows beside the output; name a file instead of standard output")
    # An overwritten output's list of errors goes, even if this run leaves no row out.
    refuse_overlap(
        [job.source.source, *heads, *stored_files(job.reference.name)],
        output_places(job.output, job.format, error_list=True),
    )


def check_size(job: Job, extractor: Extractor | Predictor, reader: Reader, num_records: int | None) -> None:
    """Refuses an input whose results would pass the limit, or the disk's room, as far as its first texts tell.

    Of a pipe, which can be read once only, they tell nothing.
    """
    from layertap.data.survey import survey
    from layertap.engine.forecast import MAX_OUTPUT_BYTES, Forecast
    from layertap.engine.variants import lengths_of

    if not reader.can_be_reread:
        return
    schemas, windows = extractor.schema(job.features, details=job.details), job.semantics.long == "window"
    longest = max(seen.max_length for seen in extractor.plan(job.features).inputs)
    limit = job.max_output_bytes or MAX_OUTPUT_BYTES
    if num_records is not None and not windows:
        at_most = Forecast.of(schemas, [longest], num_records=num_records)
        with suppress(OptionError, OutputError):
            _check_forecast(job, at_most, limit)
            return
    with reader.again() as again:
        found = survey(again)
    if found.sample and found.num_records is not None:
        # Of a text that is cut, what is far beyond the limit need not be tokenized.
        room = None if windows else longest * FORECAST_CHARACTERS
        sample = [
            replace(record, text=record.text[:room], pair=None if record.pair is None else record.pair[:room])
            for record in found.sample
        ]
        characters = accumulate(len(record.text) + len(record.pair or "") for record in sample)
        within = sum(total <= FORECAST_SAMPLE for total in characters)
        lengths = lengths_of(extractor.tokenizer, sample[: max(1, within)])
        seen = lengths if windows else [min(length, longest) for length in lengths]
        _check_forecast(job, Forecast.of(schemas, seen, num_records=found.num_records), limit)


def _check_forecast(job: Job, forecast: Forecast, limit: int) -> None:
    from layertap.data.forecast import check_space

    forecast.refuse_past(limit)
    largest = max(forecast.by_name.values())
    check_space(job.output, forecast.total, format=job.format.name, largest_bytes=largest)


def write_output(
    job: Job,
    extractor: Extractor | Predictor,
    reader: Reader,
    num_records: int | None,
    column_types: Mapping[str, pa.DataType | None],
) -> RunSummary:
    """Runs all records, and makes the output of what comes of them."""
    from layertap.data import open_writer
    from layertap.data.survey import CountedRecords
    from layertap.engine.progress import progress_on

    records = CountedRecords(reader)
    with progress_on(sys.stderr, shown=not job.quiet, total=records.total(num_records)) as on_progress:
        stream = extractor.stream(records, job.features, details=job.details, on_progress=on_progress)
        writer: Writer | None = None
        try:
            with open_writer(
                job.output,
                format=job.format.name,
                schemas=extractor.schema(job.features, details=job.details),
                column_types=column_types,
                provenance=extractor.provenance(job.features),
                overwrite=job.overwrite,
            ) as writer:
                for batch in stream:
                    writer.write(batch)
                records.check(counted=num_records, written=writer.records_written)
                writer.list_errors(reader.errors)
        except BaseException as error:
            error.add_note(_progress_note(job, stream.summary.records, error, writer))
            raise
    return stream.summary


def _progress_note(job: Job, records: int, error: BaseException, writer: Writer | None) -> str:
    """Says, for the error message, how far an interrupted run got and what it left on disk."""
    done = f"{counted(records, 'text')} {'was' if records == 1 else 'were'} done"
    if isinstance(error, OutputError):
        return done  # what is left stands in the message
    if writer is not None:
        return f"{done}; {writer.standing}"
    return f"{done}; {job.output} {'is as it was' if Path(job.output).exists() else 'was not written'}"
