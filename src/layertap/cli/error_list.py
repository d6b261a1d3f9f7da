"""The list of rows that were left out: `<output>.errors.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.errors import OutputError

if TYPE_CHECKING:
    from layertap.data import RowError


def write_error_list(path: Path, errors: Sequence[RowError]) -> None:
    """Writes an object a row, with its 0-based number, where a person finds it, and why it was left out.

    Raises:
        OutputError: the system refused; nothing is left of it then.
    """
    from layertap.data.writers.parts import PartFiles, in_words

    parts = PartFiles(path)
    try:
        file = parts.create()
        for error in errors:
            file.write(json.dumps(asdict(error), ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        parts.commit(file)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {in_words(error)}; nothing is left of it") from error
    finally:
        parts.discard()
