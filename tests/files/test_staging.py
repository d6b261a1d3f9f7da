"""Staging folders: names that nobody shares, locks that prove who lives, leftovers of killed processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layertap.files import StagedOutput, staging, system
from layertap.files.staging import SAFE_AGE, Staging, remove_leftovers, system_id

ROOT = Path(__file__).parents[2]


def leave(folder: Path, name: str = "o", content: bytes = b"half") -> Path:
    """Leaves what a killed process leaves."""
    left = Staging(folder, name)
    left.create("new-0").write(content)
    left.leave()
    return left.path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_run_removes_what_a_killed_one_left_and_says_so(tmp_path: Path) -> None:
    path = leave(tmp_path)
    output = StagedOutput(tmp_path / "o", overwrite=False)
    with pytest.warns(UserWarning, match=rf"{path.name}: removed, with 4 bytes that a killed run left there"):
        output.create().write(b"whole")
    output.discard()
    assert names(tmp_path) == []


def test_nothing_of_a_live_process_or_another_output_is_removed(tmp_path: Path) -> None:
    live = Staging(tmp_path, "o")
    live.create("new-0").write(b"live")
    other = leave(tmp_path, "o.errors.jsonl")
    mine = tmp_path / ".o.backup.part"
    mine.mkdir()
    (mine / "file").write_text("mine")
    (tmp_path / ".o.0123-4567.part").write_text("mine")
    link = tmp_path / f".o.{system_id()}-{'0' * 16}.part"
    link.symlink_to(mine)
    before = names(tmp_path)
    remove_leftovers(tmp_path, "o")
    assert names(tmp_path) == before
    live.discard()
    assert live.path.name not in names(tmp_path)
    with pytest.warns(UserWarning, match="4 bytes"):
        remove_leftovers(tmp_path)
    assert not other.exists()
    assert (mine / "file").read_text() == "mine"


def test_a_lock_of_another_system_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "system_id", lambda: "0" * 8)
    path = leave(tmp_path)
    monkeypatch.undo()
    remove_leftovers(tmp_path, "o")
    assert path.exists()
    old = time.time() - SAFE_AGE - 60
    for file in path.iterdir():
        os.utime(file, (old, old))
    with pytest.warns(UserWarning, match="4 bytes"):
        remove_leftovers(tmp_path, "o")
    assert not path.exists()


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(system, "lock", refuse)
    path = leave(tmp_path)
    remove_leftovers(tmp_path, "o")
    assert path.exists()


def test_a_process_killed_before_it_had_a_lock(tmp_path: Path) -> None:
    path = tmp_path / f".o.{system_id()}-{'0' * 16}.part"
    path.mkdir()
    remove_leftovers(tmp_path, "o")
    assert not path.exists()


def test_a_folder_taken_for_a_leftover_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, calls = system.create, []

    def meanwhile(path: Path) -> system.RawFile:
        calls.append(path.parent)
        if len(calls) == 1:
            shutil.rmtree(path.parent)  # as another process does that finds it empty
        file = create(path)
        if len(calls) == 2:
            shutil.rmtree(path.parent)  # ... or finds its lock free
        return file

    monkeypatch.setattr(system, "create", meanwhile)
    live = Staging(tmp_path, "o")
    assert names(tmp_path) == [live.path.name]
    assert len(set(calls)) == 3
    live.discard()


def test_leftovers_that_cannot_be_removed_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = leave(tmp_path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(system, "unlink", refuse)
    with pytest.warns(UserWarning, match=rf"{path.name}: 4 bytes that a killed run left cannot be removed"):
        remove_leftovers(tmp_path, "o")


@pytest.mark.parametrize("name", ["o", "a" * 255, "文" * 85, "é" * 127, "\udcff" * 200])
def test_hidden_names_fit_whatever_the_output_is_called(tmp_path: Path, name: str) -> None:
    live = Staging(tmp_path, name)
    live.create("new-0").write(b"half")
    assert len(os.fsencode(live.path.name)) <= 143
    live.leave()
    with pytest.warns(UserWarning, match="a killed run left"):
        remove_leftovers(tmp_path, name)
    assert names(tmp_path) == []


WRITE = """
import os, sys, time
from pathlib import Path
import numpy as np
os.getpid = lambda: 1  # as in two containers
from layertap.data import open_writer
from tests.faults import RAGGED, features
path, version, ready, other = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4]), Path(sys.argv[5])
with open_writer(path, schemas=[RAGGED], provenance={"version": version}, overwrite=sys.argv[3] == "1") as writer:
    writer.write(features(version, RAGGED))
    ready.touch()
    while not other.exists():
        time.sleep(0.01)
"""


def write_twice(tmp_path: Path, *, overwrite: bool, before: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """Two processes with equal numbers write one output at the same time."""
    flags = [tmp_path / "1.ready", tmp_path / "2.ready"]
    path, asked = tmp_path / "out" / "o.npy", str(int(overwrite))
    programs = [
        [*before, sys.executable, "-c", WRITE, path, str(i + 1), asked, flags[i], flags[1 - i]] for i in range(2)
    ]
    started = [subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True) for program in programs]
    said = [process.communicate(timeout=120)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def check_twice(tmp_path: Path, before: tuple[str, ...] = ()) -> None:
    import layertap

    out = tmp_path / "out"
    out.mkdir()
    ended = write_twice(tmp_path, overwrite=False, before=before)
    assert sorted(code for code, _ in ended) == [0, 1], ended
    loser = next(said for code, said in ended if code)
    assert "has appeared during the run and is not overwritten; the finished output is" in loser
    mains = sorted(path.name for path in out.glob("o*.npy") if ".offsets" not in path.name)
    assert len(names(out)) == 6  # each with its offsets and its provenance
    versions = []
    for name in mains:
        with layertap.open(out / name) as file:
            versions.append(file.provenance["version"])
            assert len(file) == 2 + versions[-1]
    assert sorted(versions) == [1, 2]
    for flag in tmp_path.glob("*.ready"):
        flag.unlink()
    ended = write_twice(tmp_path, overwrite=True, before=before)
    assert [code for code, _ in ended] == [0, 0], ended
    with layertap.open(out / "o.npy") as file:
        assert len(file) == 2 + file.provenance["version"]
    assert not list(out.glob(".*"))


def test_two_containers_with_one_process_number_write_one_output(tmp_path: Path) -> None:
    check_twice(tmp_path)


@pytest.mark.slow
def test_two_process_namespaces_write_one_output(tmp_path: Path) -> None:
    unshare = ("unshare", "--pid", "--fork")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system lets nobody make a namespace of processes")
    check_twice(tmp_path, before=unshare)


def test_a_folder_whose_lock_another_process_was_quicker_to_take_is_left_to_it(tmp_path, monkeypatch):
    taken = []

    def create(path):
        file = real(path)
        if path.name == staging.LOCK and not taken:
            taken.append((path.parent, system.open_existing(path)))
            assert system.lock(taken[0][1])
        return file

    real = system.create
    monkeypatch.setattr(system, "create", create)
    own = staging.Staging(tmp_path, "o")
    folder, other = taken[0]
    assert own.path != folder
    assert folder.exists()
    other.close()
    own.discard()
