from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.data import Input, open_reader
from layertap.data.input import RepeatedInput, check_read_once, read_options
from layertap.errors import InputError, OptionError
from tests.writing import write

COUNT = 40


def parquet(path: Path, count: int = COUNT, rows_a_group: int = 7) -> Path:
    table = pa.table({"text": [f"text {i}" for i in range(count)], "n": list(range(count))})
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


def every_format(folder: Path) -> dict[str, Path]:
    texts = [f"text {i}" for i in range(COUNT)]
    plain = "".join(f"{text}\n" for text in texts).encode()
    return {
        "txt": write(folder / "a.txt", plain),
        "gzip": write(folder / "a.txt.gz", gzip.compress(plain)),
        "jsonl": write(folder / "a.jsonl", [{"text": text} for text in texts]),
        "csv": write(folder / "a.csv", [("text", "n"), *((text, i) for i, text in enumerate(texts))]),
        "tsv": write(folder / "a.tsv", "text\tn\n" + "".join(f"{text}\t0\n" for text in texts)),
        "parquet": parquet(folder / "a.parquet"),
        "conll": write(folder / "a.conll", "".join(f"text N\n{i} N\n\n" for i in range(COUNT))),
        "conllu": write(
            folder / "a.conllu",
            "".join(f"1\ttext{chr(9)}_\t_\t_\t_\t_\t_\t_\t_\n2\t{i}\t_\t_\t_\t_\t_\t_\t_\t_\n\n" for i in range(COUNT)),
        ),
    }


@pytest.mark.parametrize(
    "rows",
    [range(0), range(1), range(5, 9), range(6, 8), range(7, 14), range(35, 100), range(100, 200), range(COUNT)],
)
def test_a_range_of_rows_is_a_slice_of_all(tmp_path, rows):
    for name, path in every_format(tmp_path).items():
        with Input(source=path).open() as reader:
            everything = list(reader)
        assert [record.text for record in everything] == [f"text {i}" for i in range(COUNT)], name
        with Input(source=path).open(rows) as reader:
            some = list(reader)
        assert [(it.row, it.text) for it in some] == [(i, f"text {i}") for i in rows if i < COUNT], name


def test_ranges_count_bad_rows_and_list_only_their_own(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "0"}\nbad\n{"text": "2"}\nbad\n{"text": "4"}\n')
    options = read_options(on_error="skip")
    with Input(source=path, options=options).open(range(2, 4)) as reader:
        assert [record.row for record in reader] == [2]
    assert [(error.row, error.where) for error in reader.errors] == [(3, "line 4")]


def test_a_range_of_parquet_reads_no_row_group_before_it(tmp_path):
    path = parquet(tmp_path / "a.parquet")
    content = bytearray(path.read_bytes())
    begin = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    content[begin : begin + 40] = b"\xff" * 40
    write(path, bytes(content))
    with pytest.raises(InputError, match="cannot be read after row 0"), open_reader(path) as reader:
        list(reader)
    with Input(source=path).open(range(21, 30)) as reader:
        assert [record.row for record in reader] == list(range(21, 30))


@pytest.mark.parametrize("rows", [range(0, 10, 2), range(-1, 5), range(5, 3)])
def test_ranges_that_are_none(tmp_path, rows):
    with pytest.raises(OptionError, match="expected range"):
        Input(source=write(tmp_path / "a.txt", "a\n")).open(rows)


def test_again_reads_the_same_rows_and_refuses_another_file(tmp_path):
    path = write(tmp_path / "a.txt", "a\nb\nc\n")
    with Input(source=path).open(range(1, 3)) as reader:
        with reader.again() as again:
            assert [record.text for record in again] == ["b", "c"]
        assert [record.text for record in reader] == ["b", "c"]
    with open_reader(path) as reader:
        write(tmp_path / "new.txt", "a\nb\nc\n").replace(path)
        with pytest.raises(InputError, match="another file took its place"):
            reader.again()


def test_a_pipe_is_not_opened_again(tmp_path):
    path = tmp_path / "fifo.txt"
    os.mkfifo(path)
    feeding = threading.Thread(target=path.write_text, args=("a\nb\n",))
    feeding.start()
    with open_reader(path) as reader:
        assert not reader.can_be_reread
        assert not Input(source=path).can_be_reread
        with pytest.raises(InputError, match="can be read once only"):
            reader.again()
        assert [record.text for record in reader] == ["a", "b"]
    feeding.join()


def test_repeated_inputs(tmp_path):
    path = write(tmp_path / "a.txt", "a\nb\n")
    records = RepeatedInput(Input(source=path))
    assert [record.text for record in records] == [record.text for record in records] == ["a", "b"]
    write(path, "a\nb\nc\n")
    with pytest.raises(InputError, match="it had 4 bytes at first and has 6 now"):
        list(records)
    for source in ("-", "/dev/null"):
        with pytest.raises(OptionError, match="can be read once only"):
            RepeatedInput(Input(source=source))


def test_what_can_be_read_once_is_named_once(tmp_path):
    fifo, path = tmp_path / "fifo", write(tmp_path / "a.txt", "a\n")
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to(fifo)
    check_read_once([path, path, fifo, "no such file"])
    with pytest.raises(OptionError, match=r"fifo and .*link are the same input"):
        check_read_once([path, fifo, tmp_path / "link"])


def test_threads_share_a_reader(tmp_path):
    path = write(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(20_000)))
    with open_reader(path) as reader, ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda _: [record.row for record in reader], range(8)))
    assert sorted(row for part in parts for row in part) == list(range(20_000))


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        open_reader("-")


def test_names_of_files_are_shown_on_one_line(tmp_path):
    path = tmp_path / "a\x1b[2J\nb.txt"
    with pytest.raises(InputError, match=r"a\\x1b\[2J\\nb\.txt: no such file"):
        open_reader(path)
    with (
        pytest.raises(InputError, match=r"a\\x1b\[2J\\nb\.txt: line 1: not UTF-8"),
        open_reader(write(path, b"\xff\n")) as reader,
    ):
        list(reader)


def test_names_too_long_for_the_system(tmp_path):
    with pytest.raises(InputError, match="cannot be opened: File name too long"):
        open_reader(tmp_path / ("a" * 300 + ".txt"))


LONG = "x" * 50


@pytest.mark.parametrize(
    ("name", "content", "line", "left"),
    [
        ("a.txt", f"a\n{LONG}\nb\n", 2, ["a", "b"]),
        ("a.txt", f"a\n{LONG}", 2, ["a"]),
        ("a.jsonl", json.dumps({"text": "a"}) + "\n" + json.dumps({"text": LONG}) + '\n{"text": "b"}\n', 2, ["a", "b"]),
        ("a.csv", f"text\na\n{LONG}\nb\n", 3, ["a", "b"]),
        ("a.tsv", f"text\na\n{LONG}\nb\n", 3, ["a", "b"]),
        ("a.conll", f"a O\n\n{LONG} O\n\nb O\n", 3, ["a", "b"]),
        ("a.conll", "a O\n\n" + "x O\n" * 20 + "\nb O\n", 3, ["a", "b"]),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_record_over_the_limit_is_a_bad_row(tmp_path, name, content, line, left, compressed):
    if compressed:
        path = write(tmp_path / f"{name}.gz", gzip.compress(content.encode()))
    else:
        path = write(tmp_path / name, content)
    with (
        pytest.raises(InputError, match=f"line {line}: .* is longer than 40 bytes, the limit for a record"),
        open_reader(path, max_record_bytes=40) as reader,
    ):
        list(reader)
    with open_reader(path, max_record_bytes=40, on_error="skip") as reader:
        assert [record.text for record in reader] == left
    assert [error.where for error in reader.errors] == [f"line {line}"]
    with open_reader(path, max_record_bytes=80) as reader:
        assert len(list(reader)) == len(left) + 1


def test_a_parquet_row_over_the_limit_is_a_bad_row(tmp_path):
    table = pa.table({"text": ["a", "x" * 100, "b", "c"], "more": [b"", b"", b"y" * 100, b""]})
    pq.write_table(table, tmp_path / "a.parquet")
    with open_reader(tmp_path / "a.parquet", max_record_bytes=60, on_error="skip") as reader:
        assert [record.text for record in reader] == ["a", "c"]
    assert [error.where for error in reader.errors] == ["row 2", "row 3"]


def test_a_line_is_as_long_as_the_limit_and_no_longer(tmp_path):
    for end in ("\n", "\r\n", ""):
        path = write(tmp_path / "a.txt", f"{'x' * 40}{end}")
        with open_reader(path, max_record_bytes=40) as reader:
            assert len(list(reader)) == 1
        with pytest.raises(InputError, match="longer than 39 bytes"), open_reader(path, max_record_bytes=39) as reader:
            list(reader)


@pytest.mark.parametrize("format_", ["txt", "jsonl", "csv", "tsv", "conll", "conllu"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_line_without_end_from_a_device(format_, on_error):
    with (
        pytest.raises(InputError, match=r"/dev/zero: line 1: .* is longer than 1,000,000 bytes"),
        open_reader("/dev/zero", format=format_, max_record_bytes=1_000_000, on_error=on_error) as reader,
    ):
        list(reader)


def test_a_quote_that_is_never_closed_is_bounded(tmp_path):
    path = write(tmp_path / "a.csv", 'text\n"open\n' + "line\n" * 1000)
    with (
        pytest.raises(InputError, match="line 2: a quote opened here"),
        open_reader(path, max_record_bytes=100, on_error="skip") as reader,
    ):
        list(reader)


def test_sentences_of_a_pipe_are_bounded(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a O\n" * 1000)))
    with (
        pytest.raises(InputError, match="line 1: the sentence is longer than 100 bytes"),
        open_reader("-", format="conll", max_record_bytes=100, on_error="skip") as reader,
    ):
        next(reader)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1MB"])
def test_limits_that_are_none(tmp_path, limit):
    with pytest.raises(OptionError, match="max_record_bytes is"):
        open_reader(write(tmp_path / "a.txt", "a\n"), max_record_bytes=limit)


def test_a_header_of_many_columns_takes_no_time(tmp_path):
    """Quadratic, 100,000 columns take minutes; linear, a tenth of a second."""
    names = [f"c{i}" for i in range(100_000)]
    path = write(tmp_path / "wide.csv", ",".join(["text", *names]) + "\n" + "a," + ",".join(names) + "\n")
    with open_reader(path) as reader:
        (record,) = list(reader)
    assert list(record.columns) == names
    with open_reader(path, columns=names) as reader:
        (record,) = list(reader)
    assert len(record.columns) == 100_000
    with pytest.raises(InputError, match="the header names 'c7' twice"):
        open_reader(write(path, ",".join([*names, "c7"]) + "\n"))
    with pytest.raises(OptionError, match="columns name 'c7' twice"):
        open_reader(path, columns=[*names, "c7"])


def test_a_small_parquet_file_does_not_unpack_without_bound(tmp_path):
    """One value of 900 kB, referred to by 40,000 rows: 43 kB as a file, 36 GB as rows, 1 GB as 1,024 of them."""
    indices = pa.array([0, 1] * 20_000, pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "x" * 900_000]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path, store_schema=False)
    assert path.stat().st_size < 100_000
    before = pa.default_memory_pool().max_memory()
    with open_reader(path) as reader:
        texts = [record.text for record, _ in zip(reader, range(300), strict=False)]
    assert list(map(len, texts[:4])) == [1, 900_000, 1, 900_000]
    assert pa.default_memory_pool().max_memory() - before < 400 << 20
