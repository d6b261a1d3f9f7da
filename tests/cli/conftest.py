"""Runs command lines in this process, and a small model to run them with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertap.cli.main import main

SOURCE = Path(__file__).parents[2] / "src"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def layertap(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`layertap("extract", path, "-o", path)`: runs it in this process."""
    # Both are set by the program, for its whole process.
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # --help and --version
            code = int(leaving.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def refused(layertap: Callable[..., Ended]) -> Callable[..., str]:
    """`refused(2, "extract", ...)`: runs it, sees that it ends as every refusal must, gives the message."""

    def run(code: int, *arguments: str | Path) -> str:
        ended = layertap(*arguments)
        assert ended.code == code, ended
        assert ended.out == ""
        assert ended.err.startswith("layertap: error: "), ended.err
        assert ended.err.count("layertap:") == 1
        assert "Traceback" not in ended.err
        return ended.err.removeprefix("layertap: error: ")

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start("extract", ...)`: a process of its own, with pipes to all its streams."""
    with ExitStack() as processes:

        def run(*arguments: str | Path) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "layertap", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
                # what a shell starts in the background is deaf to Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            return processes.enter_context(process)

        yield run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A BERT of three layers, 32 wide, with a limit of 64 tokens and a trained pooler."""
    return make_checkpoint(tmp_path_factory.mktemp("cli") / "tiny-bert")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of five texts, the third empty, the last too long for the model."""
    path = tmp_path / "texts.txt"
    path.write_text("a good film\nThe river bank.\n\nh\u00e9llo, world\n" + "word " * 100 + "\n", encoding="utf-8")
    return path
