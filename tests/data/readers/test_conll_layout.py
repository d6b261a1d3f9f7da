"""Layout of CoNLL files: columns from many lines, comments, trailing separators, tags that are none."""

from __future__ import annotations

import io

import pytest

from layertap.data import open_reader
from layertap.errors import InputError
from tests.data.readers.reading import records
from tests.writing import write


def read(path, **options):
    with open_reader(path, **options) as reader:
        found = [(record.words, record.columns.get("col1")) for record in reader]
    return found, [note.partition(": ")[2] for note in reader.notes]


EU = [(("EU", "rejects"), ["B-ORG", "O"]), (("German",), ["B-MISC"])]


@pytest.mark.parametrize(
    "content",
    [
        "EU B-ORG\t\nrejects O\n\nGerman B-MISC\n",  # a tab at one line's end
        "EU\tB-ORG\t\nrejects\tO\n\nGerman\tB-MISC\n",
        "EU\tB-ORG\t\nrejects\tO\t\n\nGerman\tB-MISC\t\n",
        "EU B-ORG\nrejects\tO\n\nGerman B-MISC\n",  # one tab among spaces
        "EU  B-ORG \nrejects O  \n \nGerman B-MISC",
        "EU\tB-ORG\r\nrejects\tO\r\n\t\r\nGerman\tB-MISC\r\n",
        "# id 1f6bb0ea domain=en\nEU B-ORG\nrejects O\n\n# id 2 domain=en\nGerman B-MISC\n",
        "# id 1f6bb0ea\tdomain=en\nEU\tB-ORG\nrejects\tO\n\n# id 2\tdomain=en\nGerman\tB-MISC\n",
        "#begin document (a/b); part 000\nEU B-ORG\nrejects O\n\n#end document\n\nGerman B-MISC\n",
        "# sent_id = 1\n# text = EU rejects\nEU\tB-ORG\nrejects\tO\n\n# A note of three words.\nGerman\tB-MISC\n",
        "# This file is free.\n# Use it well.\n\nEU B-ORG\nrejects O\n\nGerman B-MISC\n",
    ],
)
def test_files_of_two_columns_however_they_are_written(tmp_path, monkeypatch, content):
    found, notes = read(write(tmp_path / "a.conll", content))
    assert found == EU
    assert [f"{content.count('#')} line" in note and "as comments" in note for note in notes] == [True] * (
        "#" in content
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert read("-", format="conll") == (found, notes)


def test_comments_with_as_many_columns_as_words(tmp_path):
    """The files of MultiCoNER: `# id <uuid>\\tdomain=en` has four parts, and so have the words."""
    content = "# id 5239d808-f300\tdomain=en\nrobert _ _ B-OtherPER\ngottschalk _ _ I-OtherPER\n\n"
    found, notes = read(write(tmp_path / "a.conll", content))
    assert found == [(("robert", "gottschalk"), ["_", "_"])]
    assert notes == ["1 line that begins with # was taken as comments, not as words"]


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_number_signs_that_are_words(tmp_path, separator):
    words = ["#", "#begin", "#id", "#tag", "# "[:1]]
    content = "".join(f"{word}{separator}{tag}\n" for word in words for tag in ("O", "B-x"))
    (found,), notes = read(write(tmp_path / "a.conll", content))
    assert found[0] == tuple(word for word in words for _ in range(2))
    assert notes == []


def test_words_with_spaces_in_files_with_tabs(tmp_path):
    found, _ = read(write(tmp_path / "a.conll", "New York\tB-LOC\n10 000\tO\n"))
    assert found == [(("New York", "10 000"), ["B-LOC", "O"])]


def test_the_first_line_is_no_rule(tmp_path):
    content = "EU B-ORG extra\n" + "\n" + "word O\n" * 5
    path = write(tmp_path / "a.conll", content)
    with pytest.raises(InputError, match=r"line 1: 3 columns .*, and the lines of this file have 2; .*--on-error skip"):
        records(path)
    assert len(records(path, on_error="skip")) == 1


def test_a_small_o_is_noted(tmp_path):
    found, notes = read(write(tmp_path / "a.conll", "EU B-ORG\nrejects o\n\nit o\n"))
    assert found[0] == (("EU", "rejects"), ["B-ORG", "o"])
    (note,) = notes
    assert note.startswith("column 'col1' has the tag 'o' 2 times; what is no entity has the tag 'O'")
    assert read(write(tmp_path / "b.conll", "a o\nb x\n"))[1] == []


def test_a_column_that_counts_the_words_is_noted(tmp_path):
    _, notes = read(write(tmp_path / "a.conll", "1 EU B-ORG\n2 rejects O\n\n1 it O\n"))
    assert notes == ["column 0 counts the words; name that of the words (--words-column col1)"]
    assert read(write(tmp_path / "b.conll", "1 O\n\nEU B-ORG\nrejects O\n"))[1] == []
