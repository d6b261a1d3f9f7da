"""Standard streams that are closed or full: an error in words, or no error where only messages are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.writing import write

SOURCE = Path(__file__).parents[2] / "src"
FULL = Path("/dev/full")


def shell(command: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command`, in which `layertap` stands for the program and "$1" ... for the arguments."""
    program = f'"{sys.executable}" -m layertap'
    return subprocess.run(
        ["bash", "-c", command.replace("layertap", program), "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["layertap --help", "layertap --version", 'layertap explain -m "$1"'])
@pytest.mark.parametrize(("stream", "why"), [(">&-", "it is closed"), ("> /dev/full", "the disk is full")])
def test_standard_output_that_takes_nothing(model, command, stream, why):
    ended = shell(f"{command} {stream}", model)
    assert (ended.returncode, ended.stderr) == (1, f"layertap: error: standard output: cannot be written: {why}\n")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("stream", ["2>&-", "2> /dev/full"])
def test_messages_that_have_nowhere_to_go(model, texts, tmp_path, stream):
    ended = shell(f'layertap explain no-such-file.txt -m "$1" {stream}', model)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")
    ended = shell(f'layertap extract "$2" -m "$1" -o "$3" {stream}', model, texts, tmp_path / "out.npy")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "out.npy").exists()


def test_all_streams_closed(model, texts, tmp_path):
    ended = shell('layertap extract "$2" -m "$1" -o "$3" <&- >&- 2>&-', model, texts, tmp_path / "out.npy")
    assert ended.returncode == 0
    assert (tmp_path / "out.npy").read_bytes().startswith(b"\x93NUMPY")


def test_closed_standard_input_is_told(model, tmp_path):
    ended = shell('layertap extract - -m "$1" -o "$2" <&-', model, tmp_path / "out.npy")
    assert ended.returncode == 1
    assert "standard input is closed" in ended.stderr


def test_results_in_an_encoding_without_their_characters(model):
    ended = shell("layertap explain -m \"$1\" -f 'v\u00e9c = last_hidden_state.mean'", model, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "v\\xe9c" in ended.stdout


def test_names_are_shown_on_one_line(refused, model, tmp_path):
    path = tmp_path / "a\x1b[2J\nb.txt"
    assert r"a\x1b[2J\nb.txt: no such file" in refused(1, "extract", path, "-m", model, "-o", tmp_path / "out.npy")
    assert "\x1b" not in refused(2, "explain", "a.txt", "\x1b[2J")
    write(path, "good\n")
    assert "\x1b" not in refused(2, "extract", path, "-m", model, "-o", path, "--output-format", "npy")
