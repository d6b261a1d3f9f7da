"""What holds for every format: whole or nothing, the same bytes again, bounded memory."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layertap.data
from layertap.data import READ_FORMATS, WRITE_FORMATS, check_output, open_writer
from layertap.data.formats import load_format
from layertap.data.readers.base import Reader
from layertap.data.writers.base import Writer
from layertap.errors import OptionError, OutputError, UsageError
from layertap.files import StagedOutput, reason
from layertap.records import FeatureBatch, FeatureSchema, Record

DENSE = FeatureSchema(name="f", dtype="float32", shape=(64,), ragged=False)
FORMATS = sorted(WRITE_FORMATS)
SIDECARS = [name for name in FORMATS if WRITE_FORMATS[name].sidecar]

Write = Callable[..., Path]


def batch(count: int, begin: int = 0) -> FeatureBatch:
    values = np.full((count, 64), begin, dtype=np.float32)
    return FeatureBatch(records=[Record(row=begin + i, text="some text") for i in range(count)], features={"f": values})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def options(**others: Any) -> dict[str, Any]:
    return {"schemas": [DENSE], "provenance": {"model": "m"}} | others


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_stands_under_the_name_before_close(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"o.{format_}"
    writer = open_writer(path, **options())
    writer.write(batch(10))
    assert not path.exists()
    assert all(name.startswith(f".o.{format_}.") and name.endswith(".part") for name in names(tmp_path))
    writer.close()
    writer.close()
    sidecar = [f"o.{format_}.provenance.json"] if format_ in SIDECARS else []
    assert names(tmp_path) == [f"o.{format_}", *sidecar]
    assert writer.records_written == 10


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_and_an_old_output_as_it_was(
    tmp_path: Path, format_: str, error: type[BaseException]
) -> None:
    path = tmp_path / f"o.{format_}"

    def fail(overwrite: bool) -> None:
        with open_writer(path, **options(overwrite=overwrite)) as writer:
            writer.write(batch(10))
            raise error

    with pytest.raises(error):
        fail(overwrite=False)
    assert names(tmp_path) == []
    path.write_text("old")
    with pytest.raises(error):
        fail(overwrite=True)
    assert names(tmp_path) == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("format_", FORMATS)
def test_an_output_is_replaced_only_when_asked(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"o.{format_}"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"exists; name another output, or ask for overwriting"):
        open_writer(path, **options())
    assert path.read_text() == "old"
    with open_writer(path, **options(overwrite=True)) as writer:
        writer.write(batch(3))
    assert path.stat().st_size > 100
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("format_", SIDECARS)
def test_a_sidecar_is_not_replaced_unasked_either(tmp_path: Path, format_: str) -> None:
    sidecar = tmp_path / f"o.{format_}.provenance.json"
    sidecar.write_text("mine")
    with pytest.raises(UsageError, match=r"provenance\.json exists"):
        check_output(tmp_path / f"o.{format_}")
    with open_writer(tmp_path / f"o.{format_}", **options(overwrite=True)) as writer:
        writer.write(batch(3))
    assert json.loads(sidecar.read_text()) == {"model": "m", "axes": {"f": ["record", "dim"]}}


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_records_make_the_same_bytes(tmp_path: Path, write: Write, format_: str) -> None:
    files = []
    for i, size in enumerate((40, 7, 40)):
        parts = [batch(min(size, 40 - begin), 0) for begin in range(0, 40, size)]
        begin = 0
        made = []
        for part in parts:
            records = [Record(row=begin + k, text="") for k in range(len(part))]
            made.append(FeatureBatch(records=records, features=part.features))
            begin += len(part)
        files.append(write(tmp_path / f"{i}.{format_}", made, schemas=[DENSE], column_types={}).read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_full_disk_is_one_message_and_leaves_nothing(
    tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    create = StagedOutput.create

    def on_full_disk(self: StagedOutput) -> BinaryIO:
        file = create(self)
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, file.fileno())
        os.close(full)
        return file

    monkeypatch.setattr(StagedOutput, "create", on_full_disk)

    def run() -> None:
        with open_writer(tmp_path / f"o.{format_}", **options()) as writer:
            for begin in range(0, 20_000, 2000):
                writer.write(batch(2000, begin))

    with pytest.raises(OutputError, match=rf"o\.{format_}: cannot be written: the disk is full; nothing is left"):
        run()
    assert names(tmp_path) == []


def test_reasons_in_words() -> None:
    assert reason(OSError(errno.ENOSPC, "x")) == "the disk is full"
    assert reason(PermissionError(errno.EACCES, "x")) == "permission to write there is denied"
    assert reason(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert reason(OSError("odd")) == "odd"


def test_places_where_no_output_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe.npy")
    for name, message in (
        ("folder.npy", "this is a directory"),
        ("pipe.npy", "no regular file"),
        ("none/o.npy", r"there is no folder .*none; make it first"),
        ("file/o.npy", "there is no folder"),
    ):
        with pytest.raises(OutputError, match=message):
            check_output(tmp_path / name, overwrite=True)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_output(tmp_path / "o.npy")


def test_a_folder_that_refuses_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("layertap.files.system.create", refuse)
    with pytest.raises(OutputError, match=r"o\.npy: cannot be written: permission to write there is denied"):
        open_writer(tmp_path / "o.npy", **options())


def test_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"name does not say the format; name it \(one of parquet, safetensors"):
        check_output(tmp_path / "o.csv")
    with pytest.raises(OptionError, match="no output format 'csv'"):
        check_output(tmp_path / "o.npy", format="csv")
    with pytest.raises(OptionError, match="parquet cannot be written to standard output; jsonl can"):
        check_output("-", format="parquet")
    assert check_output(tmp_path / "odd.name", format="npz").name == "npz"
    assert check_output("-").name == "jsonl"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.npy").symlink_to(tmp_path / "real" / "o.npy")
    with open_writer(tmp_path / "link.npy", **options()) as writer:
        writer.write(batch(3))
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "real" / "o.npy").shape == (3, 64)
    assert names(tmp_path / "real") == ["o.npy", "o.npy.provenance.json"]


def test_jsonl_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, write_through=True))
    with open_writer("-", **options()) as writer:
        writer.write(batch(2))
    lines = out.getvalue().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [0, 1]
    assert not out.closed


def test_standard_output_has_a_batch_as_soon_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(NoClose(out), 1 << 20)))
    with open_writer("-", **options()) as writer:
        writer.write(batch(2))
        assert out.getvalue().count(b"\n") == 2


class NoClose(io.RawIOBase):
    """Takes what is flushed."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._out.write(data)


@pytest.mark.parametrize("format_", FORMATS)
def test_memory_does_not_grow_with_records(tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.data.writers.parquet.ROW_GROUP_BYTES", 1 << 20)
    count = 600 if format_ == "jsonl" else 20_000
    made = [batch(200, begin) for begin in range(0, count, 200)][:5]

    def stream() -> Iterator[FeatureBatch]:
        for i in range(count // 200):
            yield made[i % len(made)]

    peaks = []
    for repeats in (1, 4):
        tracemalloc.start()
        arrow = 0
        with open_writer(tmp_path / f"{repeats}.{format_}", **options()) as writer:
            for _ in range(repeats):
                for part in stream():
                    writer.write(part)
                    arrow = max(arrow, pa.total_allocated_bytes())
        peaks.append(tracemalloc.get_traced_memory()[1] + arrow)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 500_000
    if format_ == "parquet":
        assert pq.read_metadata(tmp_path / "4.parquet").num_rows == 4 * count


def formats_of(folder: str, base: type[Reader] | type[Writer]) -> set[str]:
    """Concrete subclasses defined in a folder of the data room, as the table names them."""
    found = set()
    for path in (Path(layertap.data.__file__).parent / folder).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                kind = load_format(folder, f"{path.stem}:{node.name}")
                if issubclass(kind, base) and not kind.__abstractmethods__:
                    found.add(f"{path.stem}:{node.name}")
    return found


def test_table_and_folders_agree() -> None:
    assert formats_of("readers", Reader) == {row.reader for row in READ_FORMATS.values()}
    assert formats_of("writers", Writer) == {row.writer for row in WRITE_FORMATS.values()}
    for table in (READ_FORMATS, WRITE_FORMATS):
        suffixes = [suffix for row in table.values() for suffix in row.suffixes]
        assert len(suffixes) == len(set(suffixes))
        assert all(name == row.name for name, row in table.items())
