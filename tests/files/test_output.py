"""Outputs: what stands there afterwards, whatever happened during the run."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from layertap.errors import OutputError
from layertap.files import StagedOutput, make_folder, remove_file, scratch_folder, staged_folder, system, write_file
from tests.faults import visible


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.more")


def test_a_file_that_appears_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.bin"
    output = StagedOutput(path, companions=(beside,), overwrite=False)
    file = output.create()
    file.write(b"finished")
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"o\.bin has appeared during the run and is not overwritten") as error:
        output.commit(file, b"more")
    (kept,) = (name for name in visible(tmp_path) if name not in ("o.bin",) and not name.endswith(".more"))
    assert f"the finished output is {tmp_path / kept}: rename it, or run again with --overwrite" in str(error.value)
    assert visible(tmp_path) == {"o.bin": b"mine", kept: b"finished", f"{kept}.more": b"more"}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_companion_that_appears_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.bin"
    output = StagedOutput(path, companions=(beside,), overwrite=False)
    file = output.create()
    beside(path).write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"o\.bin\.more has appeared during the run"):
        output.commit(file, b"more")
    assert not path.exists()
    assert beside(path).read_bytes() == b"mine"


@pytest.mark.parametrize("lost", ["link", "pipe", "folder"])
def test_other_things_that_appear_are_not_overwritten(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "o.bin"
    output = StagedOutput(path, overwrite=False)
    file = output.create()
    {"link": lambda: path.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[lost]()
    with pytest.raises(OutputError, match="has appeared during the run"):
        output.commit(file)
    kind = path.lstat().st_mode
    assert {"link": stat.S_ISLNK, "pipe": stat.S_ISFIFO, "folder": stat.S_ISDIR}[lost](kind)


@pytest.mark.parametrize("lost", ["pipe", "folder"])
def test_what_is_no_file_is_not_overwritten_when_asked_to_either(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "o.bin"
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[lost]()
    with pytest.raises(OutputError, match=r"o\.bin: cannot be written"):
        write_file(path, b"new", overwrite=True)
    assert names(tmp_path) == ["o.bin"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_an_overwritten_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "o.bin"
    for file in (path, beside(path)):
        file.write_bytes(b"old")
        file.chmod(mode)
    output = StagedOutput(path, companions=(beside,), overwrite=True)
    file = output.create()
    file.write(b"new")
    output.commit(file, b"new")
    assert visible(tmp_path) == {"o.bin": b"new", "o.bin.more": b"new"}
    assert {stat.S_IMODE(it.stat().st_mode) for it in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_and_a_new_folder_have_the_permissions_of_any(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_file(tmp_path / "o", b"new", overwrite=False)
        with staged_folder(tmp_path / "f", first="a", overwrite=False) as folder:
            folder.write("a", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "f/a").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777 & ~mask


def test_no_error_is_its_own_cause(tmp_path: Path) -> None:
    path = tmp_path / "o"

    def appears(file: BinaryIO) -> None:
        file.write(b"new")
        path.write_bytes(b"mine")

    with pytest.raises(OutputError, match="has appeared during the run") as error:
        write_file(path, appears, overwrite=False)
    assert isinstance(error.value.__cause__, FileExistsError)
    folder = tmp_path / "f"

    def build() -> None:
        with staged_folder(folder, first="a", overwrite=False) as staged:
            staged.write("a", b"new")
            folder.mkdir()

    with pytest.raises(OutputError, match="has appeared during the run") as error:
        build()
    assert isinstance(error.value.__cause__, FileExistsError)


def test_the_longest_name_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)  # that of its companion would be longer
    for content in (b"one", b"two"):
        output = StagedOutput(path, companions=(beside,), overwrite=True)
        file = output.create()
        file.write(content)
        output.commit(file, None)
        assert visible(tmp_path) == {path.name: content}
    output = StagedOutput(path, companions=(beside,), overwrite=True)
    file = output.create()
    with pytest.raises(OSError, match="too long") as error:
        output.commit(file, b"more")
    output.failure(error.value)
    assert visible(tmp_path) == {path.name: b"two"}
    assert len(list(tmp_path.iterdir())) == 1


def test_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_file(tmp_path / "real" / "o", b"old", overwrite=False)
    os.link(tmp_path / "real" / "o", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("real/o")
    write_file(tmp_path / "soft", b"new", overwrite=True)
    assert (tmp_path / "soft").is_symlink()
    assert (tmp_path / "real" / "o").read_bytes() == b"new"
    assert (tmp_path / "hard").read_bytes() == b"old"  # a second name keeps what it named
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop"):
        write_file(tmp_path / "loop" / "o", b"new", overwrite=True)


def test_a_folder_that_is_removed_during_the_run(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    output = StagedOutput(tmp_path / "f" / "o", companions=(beside,), overwrite=False)
    file = output.create()
    file.write(b"new")
    shutil.rmtree(tmp_path / "f")
    with pytest.raises(OSError, match=r"No such file") as error:
        output.commit(file, b"more")
    said = str(output.failure(error.value))
    assert said.endswith("o: cannot be written: its folder is not there any more; nothing is left of it")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_synchronised_after_all_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(system, "sync_folder", refuse)
    with pytest.raises(OutputError, match="stands there whole, but may be lost in a power cut"):
        write_file(tmp_path / "o", b"new", overwrite=True)
    assert visible(tmp_path) == {"o": b"new"}


def test_a_new_folder_and_files_of_one_that_exists(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with staged_folder(place, first="x", overwrite=True) as folder:
        folder.write("x", b"1")
        folder.write("y", b"1")
        assert names(tmp_path) == ["a"]
        assert not place.exists()
    (place / "mine").mkdir()
    (place / "mine" / "notes").write_text("mine")
    inode = place.stat().st_ino
    with staged_folder(place, first="x", overwrite=True) as folder:
        folder.write("x", b"2")
    assert visible(place) == {"x": b"2", "y": b"1", "mine/notes": b"mine"}
    assert place.stat().st_ino == inode
    with pytest.raises(RuntimeError), staged_folder(place, first="x", overwrite=True) as folder:  # noqa: PT012
        folder.write("x", b"3")
        raise RuntimeError
    assert names(place) == ["mine", "x", "y"]
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "c" / "d", first="x", overwrite=True):
        raise RuntimeError
    assert names(tmp_path) == ["a"]


def test_a_folder_that_appears_during_the_run(tmp_path: Path) -> None:
    place = tmp_path / "f"

    def build() -> None:
        with staged_folder(place, first="x", overwrite=False) as folder:
            folder.write("x", b"new")
            place.mkdir()

    with pytest.raises(OutputError, match="f has appeared during the run and is not overwritten; the finished folder"):
        build()
    (kept,) = (path for path in tmp_path.iterdir() if path.name != "f")
    assert visible(kept) == {"x": b"new"}
    assert names(place) == []
    shutil.rmtree(kept)
    shutil.rmtree(place)
    with staged_folder(place, first="x", overwrite=True) as folder:
        folder.write("x", b"new")
        place.mkdir()
        (place / "mine").write_text("mine")
    assert visible(tmp_path) == {"f/mine": b"mine", "f/x": b"new"}


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "sub", tmp_path / ("n" * 256)):
        with pytest.raises(OutputError, match="cannot be written"), staged_folder(path, first="x", overwrite=True):
            pass
    with pytest.raises(OutputError, match="cannot be made"):
        make_folder(tmp_path / "file" / "sub")
    assert visible(tmp_path) == {"file": b"mine"}


def test_small_things(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    write_file(tmp_path / "a" / "b" / "o", lambda file: file.write(b"by a function"), overwrite=False)
    assert visible(tmp_path) == {"a/b/o": b"by a function"}
    remove_file(tmp_path / "a" / "b" / "o")
    remove_file(tmp_path / "a" / "b" / "o")
    with pytest.raises(OutputError, match="cannot be removed"):
        remove_file(tmp_path / "a")
    with scratch_folder(tmp_path, "s") as scratch:
        (scratch / "x").write_text("x")
    assert not scratch.exists()
