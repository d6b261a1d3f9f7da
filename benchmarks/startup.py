"""Measure cold starts: whole processes, from the interpreter's start to the vector of one text on disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TEXT = "a quiet film that stays with you ."

_SENTENCE_TRANSFORMERS = """
import sys
import numpy
from sentence_transformers import SentenceTransformer
vectors = SentenceTransformer(sys.argv[1], device="cpu").encode(open(sys.argv[2]).read().splitlines())
numpy.save(sys.argv[3], vectors)
"""

_TRANSFORMERS = """
import sys
import numpy
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1])
with torch.inference_mode():
    batch = tokenizer(open(sys.argv[2]).read().splitlines(), return_tensors="pt")
    numpy.save(sys.argv[3], model(**batch).last_hidden_state.mean(1).numpy())
"""

_LAYERTAP_COMMAND = "import sys; from layertap.cli.main import main; sys.exit(main())"


class StartupFailedError(Exception):
    """Raised when a process fails; the message holds the last line that it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupTable:
    """Seconds of each round of each kind of process, and the kinds that failed with the reason."""

    seconds: dict[str, tuple[float, ...]]
    failed: dict[str, str]


def measure_startup(folder: Path, *, rounds: int, say: Callable[[str], None]) -> StartupTable:
    """Time every kind of process in turn, after one round that brings files into the system's cache."""
    with tempfile.TemporaryDirectory() as scratch:
        commands = _commands(folder, Path(scratch))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        failed: dict[str, str] = {}
        for turn in range(rounds + 1):
            say(f"startup: round {turn} of {rounds}")
            for name, command in commands.items():
                if name in failed:
                    continue
                try:
                    taken = _seconds_of(command)
                except StartupFailedError as error:
                    # the report names no folder of this machine
                    failed[name] = str(error).replace(scratch, "SCRATCH").replace(str(folder), "MODEL")
                    continue
                if turn > 0:
                    seconds[name].append(taken)
    return StartupTable(
        seconds={name: tuple(each) for name, each in seconds.items() if name not in failed}, failed=failed
    )


def _commands(folder: Path, scratch: Path) -> dict[str, list[str]]:
    source, target = scratch / "one.txt", scratch / "one"
    source.write_text(_TEXT + "\n", "utf-8")
    python = [sys.executable, "-c"]
    files = [str(folder), str(source), str(target)]
    return {
        "python, nothing imported": [*python, "pass"],
        "import layertap": [*python, "import layertap"],
        "layertap extract, one text": [
            *[*python, _LAYERTAP_COMMAND, "extract", str(source), "-o", f"{target}.npy"],
            *["--model", str(folder), "--feature", "v = last_hidden_state.mean", "--overwrite", "--quiet"],
        ],
        "transformers, one text": [*python, _TRANSFORMERS, *files],
        "sentence-transformers, one text": [*python, _SENTENCE_TRANSFORMERS, *files],
    }


def _seconds_of(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StartupFailedError(f"exit code {done.returncode}: {last}")
    return taken
