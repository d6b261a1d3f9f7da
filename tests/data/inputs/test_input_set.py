"""Files, folders and patterns as one ordered set of inputs."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from layertap.data.input import read_options
from layertap.data.inputs import InputSet
from layertap.errors import InputError, OptionError
from tests.writing import write


def names(*paths, **options) -> list[str]:
    return [file.name for file in InputSet.resolve([str(path) for path in paths], **options)]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder with inputs at two depths, and much that is no input."""
    folder = tmp_path / "corpus"
    for name in ("b.txt", "a/2.jsonl", "a/10.jsonl", "a.csv", "Z.TXT", "zh/\u6587.txt", "c.tsv.gz"):
        write(folder / name, "text\n")
    for name in (".hidden.txt", ".git/x.txt", "README.md", "a/Makefile", "features/data/shard.parquet"):
        write(folder / name, "")
    write(folder / "features/layertap.json", "{}")
    (folder / "linked").symlink_to(folder / "a")
    return folder


EXPECTED = ["Z.TXT", "a.csv", "a/10.jsonl", "a/2.jsonl", "b.txt", "c.tsv.gz", "zh/\u6587.txt"]


def test_a_folder_stands_for_its_files_in_the_order_of_bytes(corpus, monkeypatch):
    inputs = InputSet.resolve([corpus])
    assert [file.name for file in inputs] == EXPECTED == sorted(EXPECTED, key=str.encode)
    assert [file.size for file in inputs] == [5] * 7
    assert inputs.size == 35
    assert [file.stamp for file in inputs] == [str((corpus / name).stat().st_mtime_ns) for name in EXPECTED]
    with inputs.files[4].input.open() as reader:
        assert [record.text for record in reader] == ["text"]
    (note,) = inputs.notes
    assert note == (
        f"{corpus}: left out 2 files of another ending (README.md, a/Makefile), "
        "1 folder of features (features), 2 hidden files, 1 link to a folder (linked)"
    )
    # however it is spelled
    monkeypatch.chdir(corpus.parent)
    for spelling in ("corpus", "./corpus/", "corpus/../corpus", corpus):
        assert names(spelling) == EXPECTED
    monkeypatch.chdir(corpus)
    assert names(".") == EXPECTED


def test_names_do_not_depend_on_what_else_is_named(corpus, tmp_path):
    more = write(tmp_path / "more/late.txt", "text\n")
    assert names(corpus, more) == names(more, corpus) == sorted([*EXPECTED, "late.txt"], key=str.encode)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["b.txt"]),
        ("a/*.jsonl", ["10.jsonl", "2.jsonl"]),
        ("[a-k]/*.jsonl", ["a/10.jsonl", "a/2.jsonl"]),
        ("**/*[lt]", ["a/10.jsonl", "a/2.jsonl", "b.txt", "zh/\u6587.txt"]),
        ("*/data/*", None),
        ("**/*.txt", ["b.txt", "zh/\u6587.txt"]),
        ("*", ["Z.TXT", "a.csv", "b.txt", "c.tsv.gz"]),
        ("a/[0-9].jsonl", ["2.jsonl"]),
    ],
)
def test_patterns(corpus, monkeypatch, pattern, expected):
    monkeypatch.chdir(corpus)
    (corpus / "linked").unlink()
    if expected is None:
        with pytest.raises(InputError, match=r"left out 1 folder of features \(features\)"):
            names(pattern)
    else:
        assert names(pattern) == names(corpus / pattern) == expected


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    path = write(tmp_path / "a[1].txt", "text\n")
    write(tmp_path / "a1.txt", "text\n")
    assert names(path) == ["a[1].txt"]


def test_a_format_that_is_named_takes_every_ending(corpus):
    inputs = InputSet.resolve([corpus / "a", corpus / "README.md"], format="txt")
    assert [file.name for file in inputs] == ["10.jsonl", "2.jsonl", "Makefile", "README.md"]
    assert {file.input.format for file in inputs} == {"txt"}
    options = read_options(on_error="skip")
    assert InputSet.resolve([corpus / "a"], None, options).files[0].input.options is options


def test_a_changed_file_is_noticed(tmp_path):
    path = write(tmp_path / "a.txt", "text\n")
    (file,) = InputSet.resolve([path])
    file.check_unchanged()
    assert file.sha256() == hashlib.sha256(b"text\n").hexdigest()
    path.write_text("other text\n")
    with pytest.raises(InputError, match=r"a\.txt changed while it was read"):
        file.check_unchanged()
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        file.check_unchanged()
    with pytest.raises(InputError, match="cannot be read"):
        file.sha256()


def test_what_cannot_be_an_input_is_refused_in_words(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    Path("dangling.txt").symlink_to("nowhere")
    write(tmp_path / "holds/x.md", "")
    Path("broken").mkdir()
    Path("broken/link.txt").symlink_to("nowhere")
    write(tmp_path / "other/b.txt", "text\n")
    for arguments, message in {
        (): "no input is named",
        ("",): "an input has an empty name",
        ("-",): "standard input can be read once only",
        ("pipe",): "pipe: this is a pipe or a device",
        ("nowhere.txt",): "nowhere.txt: no such file or folder",
        ("nowhere*.txt",): r"nowhere\*.txt: no file matches this pattern",
        ("dangling.txt",): "dangling.txt: this link leads to a file that does not exist",
        ("broken",): "broken/link.txt: this link leads to a file that does not exist",
        ("empty",): "empty: there is no input here",
        ("holds",): r"there is no input here: .* \(holds: left out 1 file of another ending \(x.md\)\)",
        ("holds/*",): r"holds/\*: there is no input here",
        ("holds/x.md",): "holds/x.md: the name does not say the format",
        ("corpus/features",): "corpus/features is a folder of features and not of texts",
        ("corpus/b.txt", "./corpus/b.txt"): "b.txt is named twice; name each input once",
        ("corpus/b.txt", "corpus/b.txt"): "b.txt is named twice",
        ("corpus", "corpus/b.txt"): "b.txt is named by corpus and by corpus/b.txt",
        ("corpus/*.csv", "corpus"): r"a.csv is named by corpus/\*.csv and by corpus",
        ("corpus/b.txt", "other/b.txt"): "would both be called 'b.txt' in the output; name the folder that holds both",
        ("a\0b.txt",): "a.*b.txt: cannot be read: embedded null byte",
    }.items():
        with pytest.raises((InputError, OptionError), match=message):
            InputSet.resolve(arguments)


def test_links_in_a_folder_may_share_a_file(tmp_path):
    """As in the cache of the hub, whose files are links to blobs."""
    blob = write(tmp_path / "blobs/1", "text\n")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).symlink_to(blob)
    assert names(folder) == ["a.txt", "b.txt"]


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    try:
        with open(path, "wb") as file:  # noqa: PTH123 - a path in bytes
            file.write(b"text\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for argument in (tmp_path, os.fsdecode(path)):
        with pytest.raises(InputError, match=r"udcff\.txt: its name is not UTF-8, .*; rename it"):
            InputSet.resolve([argument])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions(corpus):  # pragma: no cover - where tests do not run as root
    (corpus / "b.txt").chmod(0)
    with pytest.raises(InputError, match=r"b\.txt: permission to read it is denied"):
        InputSet.resolve([corpus])
    (corpus / "b.txt").chmod(0o600)
    (corpus / "a").chmod(0)
    with pytest.raises(InputError, match="a: permission to read it is denied"):
        InputSet.resolve([corpus])
    (corpus / "a").chmod(0o700)


def test_permissions_are_looked_at(corpus, monkeypatch):
    """Works as root too."""
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("b.txt"))
    with pytest.raises(InputError, match=r"b\.txt: permission to read it is denied"):
        InputSet.resolve([corpus])
    assert names(corpus / "a") == ["10.jsonl", "2.jsonl"]
    shutil.rmtree(corpus)
    with pytest.raises(InputError, match="no such file or folder"):
        InputSet.resolve([corpus])
