"""Dialects of tables: what the first part of a file shows, alike for files and pipes, and what is asked for."""

from __future__ import annotations

import csv
import io

import pytest

from layertap.data import Input, open_reader
from layertap.data.input import read_options
from layertap.data.readers.dialect import HEAD_BYTES, is_quoted
from layertap.errors import InputError, OptionError, UsageError
from tests.data.readers.reading import records
from tests.writing import write

RAW = b'text\tlabel\n"I love it.\tpos\nI hate it."\tneg\ngood\tpos\n'


def rows_of(path, **options):
    with open_reader(path, **options) as reader:
        found = [(record.text, record.columns.get("label")) for record in reader]
    return found, reader


def both_ways(tmp_path, monkeypatch, name, content, **options):
    """Read a file, and the same bytes from standard input, which must not differ."""
    found, reader = rows_of(write(tmp_path / name, content), **options)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    from_pipe, other = rows_of("-", format=name.rpartition(".")[2], **options)
    assert from_pipe == found
    assert [note.partition(": ")[2] for note in other.notes] == [note.partition(": ")[2] for note in reader.notes]
    return found, reader


def test_quotation_marks_of_tsv_are_characters(tmp_path, monkeypatch):
    found, reader = both_ways(tmp_path, monkeypatch, "a.tsv", RAW)
    assert found == [('"I love it.', "pos"), ('I hate it."', "neg"), ("good", "pos")]
    assert reader.dialect.quoting == "none"
    assert reader.notes == ()
    found, reader = rows_of(tmp_path / "a.tsv", quoting="minimal")
    assert found == [("I love it.\tpos\nI hate it.", "neg"), ("good", "pos")]
    (note,) = reader.notes
    assert "1 field in quotation marks holds both a line break and tabs, first in record 1" in note
    assert "--quoting none" in note


@pytest.mark.parametrize(
    "row",
    [
        '1\t702876\t702977\tAmrozi accused his brother, whom he called "the witness".\tReferring to him as only "he".',
        '1\t"\tx\ty "a\tz',
        '2\tThe series was called `` Rooms "" .\t\'\' "" The series\tb',
    ],
)
def test_rows_of_glue_and_paws_are_read(tmp_path, row):
    fields = row.split("\t")
    header = "\t".join(f"c{i}" for i in range(len(fields) - 1)) + "\ttext"
    for end in ("\n", "\r\n"):
        path = write(tmp_path / "a.tsv", (header + end + (row + end) * 30).encode())
        found = records(path)
        assert len(found) == 30
        assert [*found[0].columns.values(), found[0].text] == fields


QUOTING = {
    "minimal": csv.QUOTE_MINIMAL,
    "all": csv.QUOTE_ALL,
    "strings": csv.QUOTE_NONNUMERIC,
}


@pytest.mark.parametrize("kind", QUOTING)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_that_a_csv_writer_made_is_read_with_its_quotation_marks(tmp_path, monkeypatch, kind, end):
    texts = ['He said "no".', "plain", "two\nlines", "a\ttab", "comma, too", '"']
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t", lineterminator=end, quoting=QUOTING[kind])
    writer.writerow(("label", "text"))
    writer.writerows((i, text) for i, text in enumerate(texts))
    found, reader = both_ways(tmp_path, monkeypatch, "a.tsv", stream.getvalue().encode())
    assert [text for text, _ in found] == texts
    assert any("fields stand in quotation marks" in note for note in reader.notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nx\ty\n", False),
        ('a\tb\n"x"\ty\nz\ty\n', False),  # marks that nothing needs, in some rows only: quoted speech
        ('a\tb\n"x, z"\ty\nu, v\ty\n', False),
        ('a\tb\n"x, z"\ty\nu; ""v""\ty\n', False),
        ('"a"\t"b"\n"x"\t"y"\n', True),
        ('"a"\t"b"\n"x"\t1\n"y"\t2\n', True),
        ('a\tb\n"x ""y"" z"\tq\n', True),
        ('a\tb\n"x\ny"\tq\n', True),
        ('a\tb\n"x\tq\ny"\tq\n', False),  # each line is a row by itself
        ('a\tb\n"x" y\tq\n', False),
        ('a\tb\nx "y"\tq\n', False),
        ('a\tb\n"x ""y"""\tq\n"cut off here', True),
        ("", False),
    ],
)
def test_what_counts_as_quoted_throughout(text, expected):
    assert is_quoted(text, "\t", header=True) is expected
    assert is_quoted(text.replace("\n", "\r\n"), "\t", header=True) is expected


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [";", "|", "\t", ","])
def test_another_delimiter_is_recognised_and_said(tmp_path, monkeypatch, name, delimiter):
    content = "text;label\nGuter Film, toll;pos\nSchlecht;neg\n".replace(",", " and ").replace(";", delimiter).encode()
    found, reader = both_ways(tmp_path, monkeypatch, name, content)
    assert found == [("Guter Film and  toll", "pos"), ("Schlecht", "neg")]
    assert reader.dialect.delimiter == delimiter
    usual = delimiter == {"a.csv": ",", "a.tsv": "\t"}[name]
    assert [("fields are separated by" in note, "--delimiter" in note) for note in reader.notes] == (
        [] if usual else [(True, True)]
    )


def test_a_delimiter_that_cannot_be_told_is_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", "text;label\nfine\none;two;three\n")
    with pytest.raises(UsageError, match=r"'text;label', is one field if commas separate .*--delimiter semicolon"):
        records(path)
    assert len(records(path, delimiter=",", text_column="text;label")) == 2
    one_column = write(tmp_path / "b.csv", "text\nHello; world\nfine\n")
    assert [record.text for record in records(one_column)] == ["Hello; world", "fine"]


def test_a_delimiter_within_the_expected_ones_changes_nothing(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a; b",1\n"c; d",2\n')
    found, reader = rows_of(path)
    assert found == [("a; b", "1"), ("c; d", "2")]
    assert reader.notes == ()
    german = write(tmp_path / "b.csv", "score;text\n1,5;gut, sehr gut\n2,0;b\n")
    assert [(r.text, dict(r.columns)) for r in records(german)] == [
        ("gut, sehr gut", {"score": "1,5"}),
        ("b", {"score": "2,0"}),
    ]


@pytest.mark.parametrize("name", ["semicolon", ";"])
def test_delimiters_asked_for(tmp_path, name):
    path = write(tmp_path / "a.csv", "text;label\na,b;c\n")
    assert rows_of(path, delimiter=name)[0] == [("a,b", "c")]
    for wrong in ("", "ab", '"', "\n", 5):
        with pytest.raises(OptionError, match=r"delimiter is .* it can be one character"):
            open_reader(path, delimiter=wrong)


def test_tables_without_a_header(tmp_path, monkeypatch):
    content = b'"3","Wall St. Bears Claw Back","Short-sellers, seeing green"\n"4","Title","Text"\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    path = write(tmp_path / "a.csv", content)
    for source in (path, "-"):
        with open_reader(source, format="csv", header=False, text_column="col2", columns=["col0"]) as reader:
            assert [(r.row, r.text, dict(r.columns)) for r in reader] == [
                (0, "Short-sellers, seeing green", {"col0": "3"}),
                (1, "Text", {"col0": "4"}),
            ]
    with Input(source=path, options=read_options(header=False, text_column="col1")).open(range(1, 2)) as reader:
        assert [record.text for record in reader] == ["Title"]
    with pytest.raises(UsageError, match=r"no column 'text'.*if that line is a row like the others, pass --no-header"):
        open_reader(path)
    with pytest.raises(
        UsageError, match=r"no column 'text'.*; without a header its columns are 'col0', 'col1', 'col2'"
    ):
        open_reader(path, header=False)
    with pytest.raises(InputError, match="names 'a' twice; rename one, or pass --no-header"):
        open_reader(write(tmp_path / "b.csv", "a,a\n"))


def test_names_of_columns(tmp_path):
    path = write(tmp_path / "a.csv", ",text, label ,\n1,a,x,\n")
    assert dict(records(path)[0].columns) == {"col0": "1", "label": "x", "col3": ""}


def test_broken_quoting_names_the_way_out(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"Good" film,1\nb,2\n')
    with pytest.raises(InputError, match=r"line 2: broken quoting: .*pass --quoting none"):
        records(path)
    assert rows_of(path, quoting="none")[0] == [('"Good" film', "1"), ("b", "2")]
    with pytest.raises(InputError, match=r"line 2: a quote opened here is never closed; .*--quoting none"):
        records(write(path, 'text\n"open\n' + "b\n" * 3))
    with pytest.raises(InputError, match="lines end with carriage returns alone"):
        records(write(path, "text,label\ra,1\rb,2\r"))


def test_fields_that_keep_their_marks_are_counted(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"Quoted speech."\tpos\nplain\tneg\n')
    found, reader = rows_of(path)
    assert found == [('"Quoted speech."', "pos"), ("plain", "neg")]
    assert "1 field begins and ends with a quotation mark, and keep" in reader.notes[0]
    assert rows_of(path, quoting="none")[1].notes == ()


def test_the_dialect_is_decided_from_a_bounded_part(tmp_path, monkeypatch):
    """Marks that only the rest of a file has do not change how it is read: alike from a file and from a pipe."""
    rows = "plain text\tpos\n" * (HEAD_BYTES // 10)
    content = ("text\tlabel\n" + rows + '"a ""quoted"" one"\tneg\n').encode()
    found, _ = both_ways(tmp_path, monkeypatch, "a.tsv", content)
    assert found[-1] == ('"a ""quoted"" one"', "neg")


def test_the_line_by_which_excel_names_the_delimiter_is_no_row(tmp_path, monkeypatch):
    found, reader = both_ways(tmp_path, monkeypatch, "a.csv", b"sep=;\r\ntext;label\r\na,b;c\r\n")
    assert found == [("a,b", "c")]
    assert reader.dialect.delimiter == ";"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_spaces_after_delimiters_and_delimiters_at_the_end_are_no_part_of_fields(tmp_path, monkeypatch, name):
    content = 'text, label\none, pos\n"a, b", neg\n' if name == "a.csv" else "text\t label\none\t pos\na, b\t neg\n"
    assert both_ways(tmp_path, monkeypatch, name, content.encode())[0] == [("one", "pos"), ("a, b", "neg")]
    trailing = "text,label\na,1,,\nb,2,\n" if name == "a.csv" else "text\tlabel\na\t1\t\t\nb\t2\t\n"
    assert both_ways(tmp_path, monkeypatch, name, trailing.encode())[0] == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# made by a tool\ntext,label\na,b\n", r"if that line is a comment, read on .*tail -n \+2 .*a\.csv \|"),
        ("text    label\na b    c\n", r"if several spaces separate columns, .*sed -E .*--input-format tsv"),
        ("Text,label\na,b\n", r"did you mean 'Text'\? Then name it \(--text-column\)"),
        ('text,label\n"say \\"no\\" to",b\n', r"a quotation mark within a field is written \"\", and not"),
        ("text,label\none, two,b\n", r"line 2: 3 fields under a header of 2 \(commas within a field need quotation"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS, .*git lfs pull"),
    ],
)
def test_other_files_name_the_remedy(tmp_path, content, message):
    with pytest.raises((UsageError, InputError), match=message):
        records(write(tmp_path / "a.csv", content))
