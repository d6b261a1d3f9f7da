"""A run from one input to one output as a value, checked as far as that goes without reading the input."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from layertap.data.formats import ERROR_LIST, STANDARD_OUTPUT, WriteFormat, check_output, output_format, output_places
from layertap.data.input import Input
from layertap.engine.details import checked_names
from layertap.engine.forecast import MAX_OUTPUT_BYTES, checked_limit
from layertap.errors import OptionError
from layertap.features.naming import Features, parsed
from layertap.files import refuse_overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run from one input to one output, whatever computes the results.

    `Job.checked` makes one.

    Attributes:
        source: the input; its options fit the output's format.
        output: the file to make, or `-` for standard output.
        format: format of the output.
        features: features to compute, or None for the default feature.
        details: details of tokens and words to write beside the features.
        overwrite: whether files that exist may be replaced.
        max_output_bytes: size of the largest results that are computed.
        leaves_columns: whether the format has no place for other columns of the input, which nobody named.
    """

    source: Input
    output: str
    format: WriteFormat
    features: Features | None
    details: tuple[str, ...]
    overwrite: bool
    max_output_bytes: int
    leaves_columns: bool = False

    @classmethod
    def checked(
        cls,
        source: Input,
        output: str | os.PathLike[str],
        *,
        output_format_name: str | None = None,
        features: Features | None = None,
        details: bool | Iterable[str] = False,
        overwrite: bool = False,
        max_output_bytes: int | None = None,
        also_read: Iterable[str | os.PathLike[str]] = (),
    ) -> Job:
        """Make a job, after every check that needs neither the input's content nor the model.

        Args:
            source: the input.
            output: the file to make, or `-` for standard output.
            output_format_name: a name of `WRITE_FORMATS`; None stands for the format that the output's ending says.
            features: features to compute, or None for the default feature.
            details: names of `layertap.engine.details.NAMES`, or True for all of them.
            overwrite: whether files that exist may be replaced.
            max_output_bytes: size of the largest results that are computed; None stands for 8 GiB.
            also_read: other files and folders that the run reads, such as the model's, which no output may replace.

        Raises:
            UsageError: an output that exists, that is an input too, or whose format cannot hold what is asked for.
            OutputError: an output that cannot be written.
        """
        if features is not None:
            parsed(features)
        if isinstance(details, str):
            raise OptionError(f"details is the string {details!r}; give a list of names, or True for all of them")
        row = output_format(output, output_format_name)
        options = source.options
        if os.fspath(output) == STANDARD_OUTPUT and options.on_error == "skip":
            raise OptionError("--on-error skip lists rows beside the output; name a file instead of standard output")
        leaves_columns = not row.holds_columns and options.columns is None
        source = _fitted(source, row)
        # The list of errors of an earlier run goes with the output, even if this run leaves no row out.
        refuse_overlap([source.source, *also_read], output_places(output, row, error_list=True))
        check_output(output, format=output_format_name, overwrite=overwrite, error_list=options.on_error == "skip")
        return cls(
            source=source,
            output=os.fspath(output),
            format=row,
            features=features,
            details=checked_names(details if isinstance(details, bool) else tuple(details)),
            overwrite=overwrite,
            max_output_bytes=MAX_OUTPUT_BYTES if max_output_bytes is None else checked_limit(max_output_bytes),
            leaves_columns=leaves_columns,
        )

    @property
    def is_streamed(self) -> bool:
        """Whether the output is standard output."""
        return self.output == STANDARD_OUTPUT

    @property
    def error_list(self) -> Path | None:
        """Place of the list of rows that are left out; None if the output is standard output."""
        return None if self.is_streamed else output_places(self.output, self.format, error_list=True)[ERROR_LIST]


def _fitted(source: Input, row: WriteFormat) -> Input:
    """Return an input that carries only what the output's format holds, or refuse what was asked for by name."""
    options = source.options
    if not row.holds_rows:
        if options.id_column is not None:
            raise OptionError(f"--id-column {options.id_column}: {row.name} holds no ids; npz and the others do")
        if options.on_error == "skip":
            raise OptionError(
                f"--on-error skip leaves rows out, and {row.name} has no place for the numbers of the others; "
                "npz and the others do"
            )
    if row.holds_columns:
        return source
    if options.columns:
        raise OptionError(
            f"--columns {','.join(options.columns)}: {row.name} holds no other columns; parquet and jsonl do"
        )
    return replace(source, options=replace(options, columns=()))
