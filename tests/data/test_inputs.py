"""Paths and folders become an ordered set of inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertap.data.inputs import InputSet
from layertap.errors import InputError, OptionError


def write(path: Path, text: str = "a\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_stands_for_its_files_of_known_endings_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.txt", "a.jsonl", "b/10.txt", "B.txt.gz", "notes.md", ".hidden.txt"):
        write(tmp_path / name)
    inputs = InputSet.resolve([tmp_path])
    assert [file.name for file in inputs] == ["B.txt.gz", "a.jsonl", "b/10.txt", "b/2.txt"]
    assert [file.size for file in inputs] == [2] * 4
    again = InputSet.resolve([os.path.relpath(tmp_path)])
    assert [(file.name, file.stamp) for file in again] == [(file.name, file.stamp) for file in inputs]


def test_files_are_named_from_the_folder_that_they_share(tmp_path):
    first, second = write(tmp_path / "x/a.txt"), write(tmp_path / "y/a.txt")
    assert [file.name for file in InputSet.resolve([second])] == ["a.txt"]
    assert [file.name for file in InputSet.resolve([second, first])] == ["x/a.txt", "y/a.txt"]
    with pytest.raises(OptionError, match="twice"):
        InputSet.resolve([first, tmp_path / "x"])


def test_a_file_that_changes_is_noticed(tmp_path):
    (file,) = InputSet.resolve([write(tmp_path / "a.txt")])
    file.check_unchanged()
    before = file.sha256()
    write(tmp_path / "a.txt", "other\n")
    with pytest.raises(InputError, match="changed"):
        file.check_unchanged()
    assert file.sha256() != before


def test_what_cannot_be_read_again_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("-", tmp_path / "pipe"):
        with pytest.raises(OptionError, match="read once only"):
            InputSet.resolve([path])
    with pytest.raises(InputError, match="no such file"):
        InputSet.resolve([tmp_path / "none.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file"):
        InputSet.resolve([tmp_path / "empty"])
