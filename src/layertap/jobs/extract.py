"""The function `layertap.extract`: features of a file, written to another, in one call."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Unpack

from layertap.checkpoints.source import stored_files
from layertap.data.input import Input, read_options
from layertap.data.readers.options import OnError, Quoting, Records
from layertap.engine.extractor import Extractor
from layertap.engine.options import ExtractorOptions, shown_in_help, split_options
from layertap.engine.summary import RunSummary
from layertap.errors import OptionError
from layertap.features.naming import Features
from layertap.jobs.folder.job import FolderJob, is_folder_output
from layertap.jobs.folder.run import RunnerChoice, run_folder
from layertap.jobs.job import Job
from layertap.jobs.run import open_job


@shown_in_help(ExtractorOptions)
def extract(
    input: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],  # noqa: A002 - the word of every tool of this kind
    output: str | os.PathLike[str],
    features: Features | None = None,
    *,
    model: str | os.PathLike[str] | Extractor | None = None,
    input_format: str | None = None,
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    spans_column: str | None = None,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    records: Records | None = None,
    encoding: str | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
    max_record_bytes: int | None = None,
    output_format: str | None = None,
    details: bool | Sequence[str] = False,
    overwrite: bool = False,
    max_output_bytes: int | None = None,
    shard_records: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    forget: bool = False,
    progress: bool = False,
    **options: Unpack[ExtractorOptions],
) -> RunSummary:
    """Compute features of every text of a file, and write them to another file, as `layertap extract` does.

    The input is read as a stream, so that memory does not depend on its size. The output appears under its name when
    it is whole, and holds the results in the order of the input; `layertap.open` reads it back. What can be checked
    without the model is checked first: the output's place, the input's columns and (in files of up to 16 MiB) every
    row; then, before anything runs, the size of the results.

    An output that ends with `/` is a folder of features: Parquet files of some thousand texts each, from any number of
    files and folders. After a kill the same call goes on, new inputs are added, and a call that asks for something else
    than the folder holds is refused.

    Args:
        input: a txt, JSONL, CSV, TSV, Parquet, CoNLL or CoNLL-U file, text formats also compressed (gzip, bzip2, xz,
            zstd); `-` is standard input. For a folder of features
            also a folder, or a list of files and folders.
        output: a Parquet, safetensors, npy, npz or JSONL file, as its name ends; `-` writes JSONL to standard output.
            `features/` is a folder, and so is a path at which a folder of features stands.
        features: a feature (text or expression), several in a list, or a mapping of names to features; None stands
            for `sentence_embedding` if the model's folder declares it, else for `last_hidden_state.mean`. A feature
            is a float32 array [N, ...] for N records unless `astype` says otherwise: [N, H], or [N, L, H] with
            several layers; per token, word or span it is ragged: [T_i, H] or [T_i, L, H] for record i.
        model: a folder, a Hugging Face hub id, None for all-MiniLM-L6-v2, or an open `Extractor`.
        input_format: "txt", "jsonl", "csv", "tsv", "parquet", "conll" or "conllu"; None: by the input's ending, txt
            for standard input.
        text_column: name of the column with the texts; None stands for `text`.
        words_column: name of a column with lists of words, which are the text then.
        pair_column: name of a column with second texts.
        spans_column: name of a column with character ranges of the text.
        id_column: name of the column with the ids; None stands for `id` if there is one.
        columns: names of other columns to carry to the output; None stands for all but the texts.
        delimiter: character between two fields of a csv or tsv file, or "tab", "comma", "semicolon", "pipe" or "space";
            None: as the file shows it.
        quoting: "minimal" if fields of a csv or tsv file may stand in quotation marks, "none" if these are characters
            like others; None: as the file shows it.
        header: whether the first row of a csv or tsv file names its columns, which are `col0`, `col1`, ... without it.
        records: a record of a txt file: a "line", a "paragraph" or the whole "file"; None stands for "line".
        encoding: encoding of a text file, as Python names it; None stands for UTF-8. A byte order mark overrides it.
        on_error: "raise" stops at the first row that cannot be read, "skip" leaves it out and lists it in
            `<output>.errors.jsonl`.
        max_errors: number of rows that "skip" tolerates; None tolerates any number.
        max_record_bytes: size of the longest record that is read; None stands for 64 MiB.
        output_format: "parquet", "safetensors", "npy", "npz" or "jsonl"; None: by the output's ending.
        details: details of tokens and words to write beside the features, names of `layertap.engine.details.NAMES`, or
            True for all of them.
        overwrite: whether files that exist may be replaced.
        max_output_bytes: results that would take more are refused before anything runs; None stands for 8 GiB, and for
            no limit where the output is a folder.
        shard_records: number of texts of one file of a folder; None stands for the folder's, or at most 16,384.
        workers: number of processes of this machine that compute the shards of a folder, and share its threads; None
            stands for this process. With `ray`, the number of actors.
        ray: Ray cluster that computes the shards of a folder: "auto" (the one of this machine), "local" (a new one) or
            an address `host:port`; needs the extra `ray`.
        forget: whether what a folder holds of inputs that are not named any more is removed.
        progress: whether to show progress on standard error.
        options: keywords of `Extractor.from_pretrained`: `precision`, `max_length`, `long`, `backend`, `threads`, ...
            Not allowed if `model` is an `Extractor`, which has its own.

    Returns:
        Counts of the run: records, tokens, skipped rows, texts that were cut, and what else a reader should know
        (`RunSummary.notes()`). Those of a folder are of all that it holds.

    Raises:
        UsageError: features, columns or options that cannot be, an output that exists or that is an input too, results
            past `max_output_bytes`.
        InputError: a row that cannot be read, or an input that changed while it was read.
        ModelNotFoundError: no such folder, package or hub id.
        CheckpointError: a model that cannot be used.
        BackendError: nothing installed here can run the model.
        NonFiniteError: NaN or infinity in a result.
        OutputError: the output cannot be written; a file that stood there is as it was.
    """
    _check_names(options)
    if isinstance(model, Extractor):
        if options:
            raise OptionError(f"{next(iter(options))}: the extractor that `model` is has its own options; leave it out")
        extractor, folder = model, model.reference.name
    else:
        split_options(model, options)  # before the input is read
        extractor, folder = None, None if model is None else os.fspath(model)
    reading = read_options(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        spans_column=spans_column,
        id_column=id_column,
        columns=columns,
        delimiter=delimiter,
        quoting=quoting,
        header=header,
        records=records,
        encoding=encoding,
        on_error=on_error,
        max_errors=max_errors,
        max_record_bytes=max_record_bytes,
    )
    inputs = [input] if isinstance(input, str | os.PathLike) else list(input)
    if is_folder_output(output):
        _refuse_for_folder(output_format, overwrite)
        choice = RunnerChoice.checked(workers=workers, ray=ray)
        folder_job = FolderJob.checked(
            inputs,
            output,
            format=input_format,
            options=reading,
            features=features,
            details=details,
            shard_records=shard_records,
            max_output_bytes=max_output_bytes,
            forget=forget,
            also_read=stored_files(folder),
        )
        opened_extractor = extractor if extractor is not None else _opened(model, options)
        return run_folder(folder_job, opened_extractor, choice=choice, progress="auto" if progress else "none").summary
    if workers is not None or ray is not None:
        raise OptionError("workers and ray go with a folder of features; let the output end with /")
    if len(inputs) != 1:
        raise OptionError(f"{len(inputs)} inputs are named; several go to a folder of features, whose name ends with /")
    if shard_records is not None or forget:
        raise OptionError("shard_records and forget go with a folder of features; let the output end with /")
    job = Job.checked(
        Input(source=inputs[0], format=input_format, options=reading),
        output,
        output_format_name=output_format,
        features=features,
        details=details,
        overwrite=overwrite,
        max_output_bytes=max_output_bytes,
        also_read=stored_files(folder),
    )
    with open_job(job) as opened:
        streams = extractor if extractor is not None else _opened(model, options)
        opened.forecast(streams)
        return opened.run(streams, progress=progress)


def _refuse_for_folder(output_format: str | None, overwrite: bool) -> None:
    if output_format not in (None, "parquet"):
        raise OptionError(f"output_format {output_format!r}: the shards of a folder are Parquet")
    if overwrite:
        raise OptionError("overwrite: a folder of features is continued and not overwritten; remove it to begin anew")


def _check_names(options: Iterable[str]) -> None:
    """Refuse an option that `extract` does not have, with the nearest name that it has."""
    names = tuple(inspect.signature(extract).parameters)
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"options are {', '.join(names)}"
            raise OptionError(f"there is no option {name!r} here; {hint}")


def _opened(model: Any, options: Any) -> Extractor:
    return Extractor.from_pretrained(model, **options)
