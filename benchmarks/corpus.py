"""Measure memory against corpus size: ``layertap extract`` on longer and longer files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.peers import Settings
from benchmarks.workload import read_sentences

SIZES = (1_000, 10_000, 100_000)

# Runs the command as the console script does, and then prints its peak resident memory.
_COMMAND = """
import sys
from benchmarks.worker import peak_memory_bytes
from layertap.cli.main import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print(peak_memory_bytes())
sys.exit(code)
"""


class CorpusFailedError(Exception):
    """Raised when the command fails; the message holds the last line that it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRun:
    """Figures of one file extracted by the command line."""

    records: int
    seconds: float
    peak_bytes: int
    output_bytes: int


def measure_corpus(
    data: Path, settings: Settings, *, sizes: Sequence[int], say: Callable[[str], None]
) -> list[CorpusRun]:
    """Extract sentences of movie reviews, repeated as needed, to Parquet in bfloat16.

    Raises:
        CorpusFailedError: The command line failed.
    """
    sentences = read_sentences(data)
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            say(f"corpus: {size} records")
            source = Path(scratch) / "texts.txt"
            source.write_text("".join(f"{text}\n" for text in islice(cycle(sentences), size)), "utf-8")
            runs.append(_run(source, Path(scratch) / "features.parquet", settings, size))
    return runs


def _run(source: Path, target: Path, settings: Settings, records: int) -> CorpusRun:
    command = [
        *[sys.executable, "-c", _COMMAND, "extract", str(source), "-o", str(target), "--overwrite", "--quiet"],
        *["--model", str(settings.folder), "--feature", "v = last_hidden_state.mean", "--precision", "bfloat16"],
    ]
    start = time.perf_counter()
    root = Path(__file__).parents[1]  # the folder that contains `benchmarks`
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CorpusFailedError(f"layertap extract, exit code {done.returncode}: {last}")
    return CorpusRun(
        records=records,
        seconds=seconds,
        peak_bytes=int(done.stdout.split()[-1]),
        output_bytes=target.stat().st_size,
    )
