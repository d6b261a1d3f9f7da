from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertap.errors import OptionError
from layertap.files import refuse_overlap
from tests.writing import write


def check(places, inputs):
    refuse_overlap(inputs, {f"result {i}": Path(place) for i, place in enumerate(places)})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "data" / "texts.txt", "a\n")


def test_places_without_an_input_pass(tmp_path, source):
    write(tmp_path / "out.npy", b"")
    check([tmp_path / "out.npy", tmp_path / "new.npy", tmp_path / "no" / "such"], [source, "bert-base-uncased"])
    check(["-"], ["-"])
    check([], [source])


def test_the_input_is_known_by_any_name(tmp_path, source, monkeypatch):
    (tmp_path / "link.txt").symlink_to(source)
    (tmp_path / "folder").symlink_to(source.parent)
    os.link(source, tmp_path / "hard.txt")
    monkeypatch.chdir(tmp_path)
    names = ("link.txt", "hard.txt", "folder/texts.txt", "data/../data/./texts.txt", source, Path("data") / "texts.txt")
    for place in names:
        for name in names:
            with pytest.raises(OptionError, match="name another output"):
                check(["new.npy", place], [name])


def test_a_name_in_another_case_is_the_same_file_where_the_system_says_so(tmp_path, source, monkeypatch):
    # A file system that does not tell cases apart answers both names with one inode.
    plain = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **more: plain(Path(str(path).replace("TEXTS", "texts")), **more))
    with pytest.raises(OptionError, match=r"TEXTS\.txt would be replaced"):
        check([source.with_name("TEXTS.txt")], [source])


def test_a_folder_stands_for_what_is_in_it(tmp_path, source):
    inner = write(tmp_path / "data" / "deep" / "more.txt", "b\n")
    with pytest.raises(OptionError):
        check([source.parent], [source])
    with pytest.raises(OptionError):
        check([source.parent], [inner])
    with pytest.raises(OptionError):
        check([inner], [source.parent])
    check([source.parent / "new.npy"], [source.parent])


def test_two_results_in_one_place(tmp_path, source):
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(OptionError, match="would be result 0 and result 1 at once"):
        check([tmp_path / "a.csv", tmp_path / "folder" / "a.csv"], [source])


def test_names_that_no_system_takes(tmp_path, source):
    check([tmp_path / ("a" * 300)], [source, tmp_path / ("b" * 300), "nul\0"])


def test_names_are_shown_on_one_line(tmp_path):
    path = write(tmp_path / "a\x1b[2J\nb.txt", "a\n")
    with pytest.raises(OptionError) as refusal:
        check([path], [path])
    assert r"a\x1b[2J\nb.txt is the input too" in str(refusal.value)
