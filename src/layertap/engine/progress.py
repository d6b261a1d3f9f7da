"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from layertap.engine.pipeline import ProgressCallback

SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal, a line is printed at most so often."""


@contextmanager
def progress_on(stream: TextIO, *, shown: bool, total: int | None) -> Iterator[ProgressCallback | None]:
    """What to call after each packed batch, or None where nothing is to be shown.

    Args:
        stream: where to draw, usually standard error.
        shown: whether to draw at all.
        total: records in all, or None where that is not known before the end.
    """
    if not shown:
        yield None
    elif stream.isatty():
        with _bar(stream, total) as callback:
            yield callback
    else:
        yield _lines(stream, total)


@contextmanager
def _bar(stream: TextIO, total: int | None) -> Iterator[ProgressCallback]:
    from tqdm import tqdm  # 30 ms that only a terminal needs

    started = time.perf_counter()
    tokens_done = 0
    with tqdm(total=total, unit=" texts", file=stream, dynamic_ncols=True, leave=False, miniters=1) as bar:

        def advance(records: int, tokens: int) -> None:
            nonlocal tokens_done
            tokens_done += tokens
            rate = tokens_done / max(time.perf_counter() - started, 1e-9)
            bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update(records)

        yield advance


def _lines(stream: TextIO, total: int | None) -> ProgressCallback:
    started = last = time.perf_counter()
    records_done = tokens_done = 0

    def advance(records: int, tokens: int) -> None:
        nonlocal last, records_done, tokens_done
        records_done += records
        tokens_done += tokens
        now = time.perf_counter()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        seconds = now - started
        line = f"{records_done:,} texts, {records_done / seconds:,.0f} texts/s, {tokens_done / seconds:,.0f} tokens/s"
        if total and records_done:
            line += f", about {(total - records_done) * seconds / records_done:,.0f} s left"
        print(line, file=stream, flush=True)

    return advance
