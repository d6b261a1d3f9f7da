from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.data import open_reader
from layertap.errors import InputError, OptionError, UsageError
from layertap.records import FeatureBatch, Record
from tests.data.readers.reading import records
from tests.writing import write

FIELDS = st.text(alphabet=st.sampled_from('ab,\t"\n \u2028\x85\u4e2d;'), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=6),
    ending=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", "\t"]),
)
def test_what_the_csv_module_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: Sequence[tuple[str, str, str]], ending: str, delimiter: str
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator=ending)
    writer.writerow(("label", "text", "id"))
    writer.writerows(rows)
    path = tmp_path_factory.getbasetemp() / ("a.csv" if delimiter == "," else "a.tsv")
    path.write_bytes(b"\xef\xbb\xbf" + written.getvalue().encode())
    assert records(path, quoting="minimal") == [
        Record(row=i, text=text, id=found_id, columns={"label": label})
        for i, (label, text, found_id) in enumerate(rows)
    ]


def test_csv_types_are_strings_in_the_order_of_the_output(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"n,text,key\n1,a,x\n")
    with open_reader(path, id_column="key") as reader:
        assert list(reader.column_types.items()) == [("id", pa.string()), ("n", pa.string())]
        assert list(reader) == [Record(row=0, text="a", id="x", columns={"n": "1"})]
    assert records(path, columns=["text", "n"])[0].columns == {"text": "a", "n": "1"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,a,more", "line 3: 3 fields under a header of 2"),
        (b"1", "line 3: 1 field under a header of 2"),
        (b'1,"a"b', "line 3: broken quoting: "),
        (b'"\n1,"a"b', r"line 3: broken quoting: .*in lines 3 to 4, taken as one row"),
        (b'1,"one\n\xff\ntwo"', r"line 4: not UTF-8: byte 0xff at byte 1 of the line"),
        (b'1,"a\0"', "line 3: a NUL at byte 5"),
    ],
)
def test_a_bad_csv_row_stops_or_is_skipped_and_the_next_is_whole(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "a.csv", b"n,text\n0,a\n" + line + b"\n\n2,last\n")
    with pytest.raises(InputError, match=r"a\.csv: " + reason):
        records(path)
    with open_reader(path, on_error="skip") as reader:
        assert [(record.row, record.text) for record in reader] == [(0, "a"), (2, "last")]
        assert [error.row for error in reader.errors] == [1]


def test_a_quote_never_closed_is_not_skipped_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'n,text\n0,a\n1,"b\n' + b"2,c\n" * 100)
    with pytest.raises(InputError, match=r"line 3: a quote opened here is never closed"):
        records(path, on_error="skip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"text,a,a\n", "line 1: the header names 'a' twice"),
        (b"te\xffxt\n", "line 1, the header: not UTF-8"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_reader(write(tmp_path / "a.csv", data))


def test_csv_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'text' .*; its first line names the columns 'sentence', 'label'$"):
        open_reader(write(tmp_path / "a.csv", b"sentence,label\na,1\n"))
    with pytest.raises(UsageError, match=r"columns '0', .* '19' and 5 more; .*--no-header"):
        open_reader(write(tmp_path / "a.csv", ",".join(map(str, range(25))).encode()))
    with pytest.raises(UsageError, match=r"only one with strings is 'sentence'"):
        open_reader(write(tmp_path / "a.csv", b"sentence\na\n"))


def test_a_csv_field_of_ten_megabytes(tmp_path: Path) -> None:
    text = 'word "quoted", ' * 700_000
    path = write(tmp_path / "a.csv", f'text,n\n"{text.replace(chr(34), chr(34) * 2)}",1\n'.encode())
    assert records(path) == [Record(row=0, text=text, columns={"n": "1"})]


def parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


EXOTIC = {
    "id": pa.array([5, 6, 2**63], pa.uint64()),
    "nanoseconds": pa.array([1, None, 2], pa.timestamp("ns", "UTC")),
    "category": pa.array(["x", "y", None]).dictionary_encode(),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
    "decimal": pa.array([Decimal("1.250"), None, Decimal("-3.000")], pa.decimal128(20, 3)),
    "times": pa.array([[1, 2], [], None], pa.list_(pa.time64("ns"))),
    "struct": pa.array([{"t": 1}, None, {"t": None}], pa.struct({"t": pa.duration("ns")})),
    "far": pa.array([2**52, 0, None], pa.timestamp("ms")),
    "bytes": pa.array([b"\xff", b"", None], pa.binary()),
    "tags": pa.array([["a"], [], ["b", None]], pa.large_list(pa.large_string())),
}


@pytest.mark.parametrize("row_group_size", [1, 2, 3])
def test_parquet_columns_are_carried_to_parquet_exactly(
    tmp_path: Path,
    batches: Callable[..., list[FeatureBatch]],
    write: Callable[..., Path],
    row_group_size: int,
) -> None:
    source = parquet(tmp_path, {"text": ["a", "b", "c"], **EXOTIC}, row_group_size=row_group_size)
    with open_reader(source) as reader:
        found = list(reader)
    made = batches((3,))
    outputs = [
        write(tmp_path / f"{i}.parquet", parts, column_types=reader.column_types)
        for i, parts in enumerate(
            (
                [FeatureBatch(records=found, features=made[0].features)],
                [
                    FeatureBatch(records=found[i : i + 1], features=part.features)
                    for i, part in enumerate(batches((1, 1, 1)))
                ],
            )
        )
    ]
    expected = pq.read_table(source).drop(["text"])
    for output in outputs:
        table = pq.read_table(output).select(expected.schema.names)
        assert table.schema.remove_metadata() == expected.schema
        assert table.equals(expected)


def test_parquet_rows_left_out_leave_the_others_in_place(
    tmp_path: Path, batches: Callable[..., list[FeatureBatch]], write: Callable[..., Path]
) -> None:
    texts = ["a", None, "b", None, "c"]
    source = parquet(tmp_path, {"text": texts, "n": pa.array(range(5), pa.int16())})
    with pytest.raises(InputError, match=r"a\.parquet: row 2: column 'text' is null"):
        records(source)
    with open_reader(source, on_error="skip") as reader:
        found = list(reader)
        assert [error.where for error in reader.errors] == ["row 2", "row 4"]
    assert [record.row for record in found] == [0, 2, 4]
    made = FeatureBatch(records=found, features=batches((3,))[0].features)
    output = write(tmp_path / "o.parquet", [made], column_types=reader.column_types)
    assert pq.read_table(output, columns=["row", "n"]).to_pylist() == [{"row": n, "n": n} for n in (0, 2, 4)]


def test_arrow_values_as_python_values(tmp_path: Path) -> None:
    first, _, last = records(parquet(tmp_path, {"text": ["a", "b", "c"], **EXOTIC}))
    assert first.id == 5
    assert dict(first.columns) == {
        "nanoseconds": "1970-01-01 00:00:00.000000001Z",
        "category": "x",
        "map": [{"key": "a", "value": 1}],
        "decimal": Decimal("1.250"),
        "times": ["00:00:00.000000001", "00:00:00.000000002"],
        "struct": {"t": "1"},
        "far": 2**52,
        "bytes": b"\xff",
        "tags": ["a"],
    }
    assert last.columns["category"] is None
    assert "text" not in first.columns
    assert len(first.columns) == 9


def test_every_kind_of_string_column_is_a_text(tmp_path: Path) -> None:
    for type_ in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        path = parquet(tmp_path, {"text": pa.array(["a", "b"], pa.string()).cast(type_)})
        assert [record.text for record in records(path)] == ["a", "b"]
        with open_reader(path) as reader:
            assert dict(reader.column_types) == {}


def test_a_parquet_string_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"b\xff", b"c"], pa.binary()).view(pa.string())
    path = parquet(tmp_path, {"text": broken})
    with open_reader(path, on_error="skip") as reader:
        assert [record.text for record in reader] == ["a", "c"]
        assert [(error.row, error.reason) for error in reader.errors] == [(1, "column 'text' is not UTF-8: byte 0xff")]


def test_parquet_columns_that_cannot_play_their_role(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": [1, 2], "body": ["a", "b"], "score": [0.5, 1.0]})
    with pytest.raises(UsageError, match=r"column 'text' holds int64, not strings; those with strings are 'body'"):
        open_reader(path)
    with pytest.raises(UsageError, match=r"column 'score' cannot be the id"):
        open_reader(path, text_column="body", id_column="score")
    with pytest.raises(UsageError, match=r"no column 'title'; its columns are 'text', 'body', 'score'"):
        open_reader(path, text_column="body", columns=["title"])
    assert records(path, text_column="body", id_column="text", columns=[]) == [
        Record(row=0, text="a", id=1),
        Record(row=1, text="b", id=2),
    ]


def test_an_id_column_that_cannot_be_the_id_is_a_column(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": ["a"], "id": [0.5]})
    with open_reader(path) as reader:
        assert dict(reader.column_types) == {"id": pa.float64()}
        (record,) = reader
    assert record == Record(row=0, text="a", columns={"id": 0.5})


def test_files_that_are_no_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path, {"text": ["a"] * 1000})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="no readable Parquet file"):
        open_reader(path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(OptionError, match="cannot be read from standard input"):
        open_reader("-", format="parquet")
    with pytest.raises(InputError, match="not read compressed"):
        open_reader(write(tmp_path / "a.parquet.gz", b""))


def test_parquet_damaged_in_the_middle(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": [f"text {i}" for i in range(20_000)]}, row_group_size=5_000, compression="zstd")
    data = bytearray(path.read_bytes())
    third = pq.read_metadata(path).row_group(2).column(0)
    for i in range(third.data_page_offset, third.data_page_offset + 200):
        data[i] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read after row \d+"):
        records(path, on_error="skip")


def test_parquet_progress_reaches_the_size_of_the_file(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": ["some text"] * 5000})
    with open_reader(path) as reader:
        assert reader.bytes_read == 0
        seen = [reader.bytes_read for _ in reader]
        assert seen == sorted(seen)
        assert reader.bytes_read == reader.bytes_total == path.stat().st_size
