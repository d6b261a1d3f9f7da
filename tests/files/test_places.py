"""Places of outputs, checked before a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertap.errors import OutputError, UsageError
from layertap.files import check_new_folder, check_place, refuse_descriptor, resolved, staged_folder, write_file


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_that_leads_to_itself_is_refused_before_the_run(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match=r"a: cannot be written: it is a symbolic link that leads to itself"):
        check_place(tmp_path / "a", overwrite=overwrite)
    with pytest.raises(OutputError, match="a symbolic link that leads to itself"):
        check_new_folder(tmp_path / "a")


def test_a_link_to_a_file_that_is_yet_to_be_made_passes(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    check_place(tmp_path / "a", overwrite=False)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are those of Linux here")
def test_names_of_open_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "redirected.jsonl"
    with file.open("wb") as opened:
        number = opened.fileno()
        opened.write(b"before")
        (tmp_path / "link").symlink_to(f"/dev/fd/{number}")
        (tmp_path / "links").symlink_to("link")
        names = (f"/proc/self/fd/{number}", f"/proc/{os.getpid()}/fd/{number}", f"/dev/fd/{number}", "/dev/stdout")
        for name in (*names, tmp_path / "link", tmp_path / "links"):
            with pytest.raises(OutputError, match="is the name of an open file"):
                refuse_descriptor(name)
            with pytest.raises(OutputError, match="is the name of an open file"):
                check_place(Path(name), overwrite=True)
    assert file.read_bytes() == b"before"
    refuse_descriptor(file)
    refuse_descriptor(tmp_path / "fd" / "1")


def test_a_current_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = "o: cannot be written: the current folder is not there any more"
    with pytest.raises(OutputError, match=said):
        resolved("o")
    with pytest.raises(OutputError, match=said):
        write_file(Path("o"), b"", overwrite=True)
    with pytest.raises(OutputError, match=said), staged_folder(Path("o"), first="f", overwrite=False):
        pass
    assert resolved(tmp_path / "o") == tmp_path / "o"


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no NUL character"):
        resolved(tmp_path / "a\0b")
