"""Inputs that can be read once only, in every command, each a process of its own; and files that change meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from layertap.jobs import run as jobs_run
from tests.selection import slow_except
from tests.writing import write

SOURCE = Path(__file__).parents[2] / "src"
FEATURE = ("-f", "hidden_states[0].cls")
LIMIT = 300
"""Seconds after which a process that waits for a second writer is given up."""


def lines(count: int) -> bytes:
    return b"".join(b"text %d\n" % i for i in range(count))


def labelled(count: int) -> bytes:
    rows = ({"text": f"{'good' if i % 2 else 'bad'} text {i}", "label": "pn"[i % 2]} for i in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def fed(content: bytes, place: int | Path) -> threading.Thread:
    """A thread that writes into a pipe, and does not mind if the reader leaves early."""

    def feed() -> None:
        try:
            with os.fdopen(os.open(place, os.O_WRONLY) if isinstance(place, Path) else place, "wb") as stream:
                stream.write(content)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    return thread


Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """`run(content, kind, "extract", "INPUT", ...)`: runs a command whose INPUT is a pipe with that content."""

    def run(content: bytes, kind: str, *arguments: str | Path) -> Ran:
        kept: list[int] = []
        stdin = None
        if kind == "fifo":
            place: int | Path = tmp_path / "input.fifo"
            os.mkfifo(place)
            name = str(place)
        else:
            reader, place = os.pipe()
            kept = [reader]
            stdin = reader if kind in ("stdin", "-") else None
            name = {"stdin": "/dev/stdin", "-": "-"}.get(kind, f"/dev/fd/{reader}")
        fed(content, place)
        command = [sys.executable, "-m", "layertap", *(name if it == "INPUT" else str(it) for it in arguments)]
        try:
            return subprocess.run(
                command,
                stdin=stdin or subprocess.DEVNULL,
                pass_fds=kept,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
                env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            )
        finally:
            for number in kept:
                os.close(number)

    return run


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("fd", 20_000),
        pytest.param("fd", 50, marks=pytest.mark.slow),
        pytest.param("stdin", 20_000, marks=pytest.mark.slow),
        ("stdin", 50),
        pytest.param("-", 50, marks=pytest.mark.slow),
        pytest.param("fifo", 20_000, marks=pytest.mark.slow),
    ],
)
def test_extract_takes_every_record_of_a_pipe(run, model, tmp_path, kind, count):
    output = tmp_path / "out.npy"
    ran = run(lines(count), kind, "extract", "INPUT", "--input-format", "txt", "-m", model, "-o", output, *FEATURE)
    assert ran.returncode == 0, ran.stderr
    assert f"{count:,} in " in ran.stderr
    with output.open("rb") as file:
        assert f"({count}, 32)" in file.read(128).decode("latin-1")


@pytest.mark.parametrize("kind", slow_except(("fd", "fifo"), "fifo"))
def test_jsonl_from_a_pipe(run, model, tmp_path, kind):
    output = tmp_path / "out.parquet"
    command = ("extract", "INPUT", "--input-format", "jsonl", "-m", model, "-o", output, *FEATURE)
    ran = run(labelled(3000), kind, *command)
    assert ran.returncode == 0, ran.stderr
    assert pq.read_table(output, columns=["label"])["label"].to_pylist() == ["p", "n"] * 1500


def test_explain_does_not_know_how_many_texts_a_long_pipe_has(run, model):
    ran = run(lines(3000), "fd", "explain", "INPUT", "--input-format", "txt", "-m", model)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lengths: from the first 1,000 texts of" in ran.stdout
    assert "how many there are in all is not known of an input that can be read once only" in ran.stdout


def test_a_pipe_of_compressed_texts_is_read(run, model, tmp_path):
    command = ("--input-format", "txt", "-m", model, "-o", tmp_path / "o.parquet", *FEATURE)
    ran = run(gzip.compress(lines(50)), "-", "extract", "INPUT", *command)
    assert ran.returncode == 0, ran.stderr
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 50


def test_explain_reads_a_fifo_once(run, model):
    ran = run(lines(50), "fifo", "explain", "INPUT", "--input-format", "txt", "-m", model)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lengths: from the first 50 texts of" in ran.stdout


@pytest.mark.parametrize("kind", slow_except(("fd", "fifo", "stdin", "-"), "fifo", "-"))
def test_fit_learns_from_every_record_of_a_pipe(run, model, tmp_path, kind):
    ran = run(labelled(40), kind, "fit", "INPUT", "--input-format", "jsonl", "-m", model, "-o", tmp_path / "h.head")
    assert ran.returncode == 0, ran.stderr
    assert "40 texts" in ran.stderr


def test_predict_takes_every_record_of_a_pipe(run, model, tmp_path):
    data = write(tmp_path / "train.jsonl", labelled(40))
    head, output = tmp_path / "good.head", tmp_path / "out.jsonl"
    ran = run(b"", "fd", "fit", data, "-m", model, "-o", head, "-f", "hidden_states[0].mean")
    assert ran.returncode == 0, ran.stderr
    ran = run(lines(2000), "fifo", "predict", "INPUT", "--input-format", "txt", "--head", head, "-o", output, "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(output.read_text().splitlines()) == 2000


def test_probe_takes_every_record_of_a_pipe(run, model, tmp_path):
    report = tmp_path / "report.json"
    options = ("--input-format", "jsonl", "--label", "label", "-m", model, "--layers", "0", "-q", "-o", report)
    ran = run(labelled(60), "fifo", "probe", "INPUT", *options)
    assert ran.returncode == 0, ran.stderr
    assert "60" in ran.stdout
    ran = run(labelled(60), "fd", "probe", "INPUT", "--test", "INPUT", *options[:-2])
    assert ran.returncode == 2
    assert "are the same input, which can be read once only" in ran.stderr


def test_parquet_from_a_pipe_is_refused_in_words(run, model, tmp_path):
    command = ("extract", "INPUT", "--input-format", "parquet", "-m", model, "-o", tmp_path / "out.npy")
    ran = run(b"PAR1", "fifo", *command)
    assert ran.returncode == 1
    assert "a pipe cannot be read; write it to a file" in ran.stderr


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"one more\n")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    content = path.read_bytes()
    path.rename(path.with_name("old.txt"))
    path.write_bytes(content)


def rewrite(path: Path) -> None:
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"text", b"TEXT"))
    os.utime(path, ns=(time + 1, time + 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (grow, "bytes at first and has"),
        (shrink, "bytes at first and has"),
        (replace, "another file took its place"),
        (rewrite, "something wrote to it"),
    ],
)
def test_a_file_that_changes_before_the_count_is_told(refused, monkeypatch, model, tmp_path, change, words):
    texts = write(tmp_path / "texts.txt", lines(100))
    counted = jobs_run.count_records

    def count_records(reader):
        change(texts)
        return counted(reader)

    monkeypatch.setattr(jobs_run, "count_records", count_records)
    said = refused(1, "extract", texts, "-m", model, "-o", tmp_path / "out.npy", *FEATURE)
    assert f"{texts} changed while it was read: " in said
    assert words in said
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("change", "words"), [(grow, "bytes at first"), (shrink, "bytes at first"), (rewrite, "wrote")]
)
def test_a_file_that_changes_after_the_count_is_told(refused, monkeypatch, model, tmp_path, change, words):
    texts = write(tmp_path / "texts.txt", lines(100))
    counted = jobs_run.count_records

    def count_records(reader):
        count = counted(reader)
        change(texts)
        return count

    monkeypatch.setattr(jobs_run, "count_records", count_records)
    said = refused(1, "extract", texts, "-m", model, "-o", tmp_path / "out.npy", *FEATURE)
    assert f"{texts} changed while it was read: " in said
    assert words in said
    assert not (tmp_path / "out.npy").exists()


def test_a_file_that_was_counted_otherwise_is_told(refused, monkeypatch, model, tmp_path):
    texts = write(tmp_path / "texts.txt", lines(100))
    monkeypatch.setattr(jobs_run, "count_records", lambda _: 101)
    said = refused(1, "extract", texts, "-m", model, "-o", tmp_path / "out.npy", *FEATURE)
    assert "it had 101 records before the run and 100 in it" in said
    assert not (tmp_path / "out.npy").exists()
