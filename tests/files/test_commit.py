"""Several files that belong together: commits take turns, readers see one of them, what a kill left is settled."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from layertap.errors import OutputError
from layertap.files import StagedOutput, commit, read_settled, settle, system
from layertap.files.staging import Staging, hidden_name
from tests.faults import faults, visible


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.more")


def write(path: Path, content: bytes, more: bytes | None, *, overwrite: bool = True) -> None:
    output = StagedOutput(path, companions=(beside,), overwrite=overwrite)
    try:
        file = output.create()
        file.write(content)
        output.commit(file, more)
    finally:
        output.discard()


def both(path: Path) -> tuple[bytes, bytes]:
    return read_settled(path, lambda: (path.read_bytes(), beside(path).read_bytes()))


def test_commits_of_one_output_take_turns_and_readers_see_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "o"
    write(path, b"start", b"start")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(15):
                content = b"%d %d" % (number, i)
                write(path, content, content)
        except BaseException as error:
            failures.append(error)

    with faults():  # without waiting for the disk
        writers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            one, other = both(path)
            assert one == other
        for writer in writers:
            writer.join()
    assert failures == []
    assert path.read_bytes() == beside(path).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["o", "o.more"]  # noqa: PTH208


def test_a_commit_waits_for_one_that_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o"
    write(path, b"old", b"old")
    started, real = threading.Event(), system.rename

    def slowly(source: Path, place: Path) -> None:
        started.set()
        time.sleep(0.05)
        real(source, place)

    monkeypatch.setattr(system, "rename", slowly)
    other = threading.Thread(target=write, args=(path, b"first", b"first"))
    other.start()
    started.wait()
    assert both(path) == (b"first", b"first")  # the reader waits too
    other.join()


def test_a_commit_that_never_ends_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "LONGEST_COMMIT", -0.9)
    record = system.create(tmp_path / hidden_name("o", ".commit"))
    with record:
        assert system.lock(record)
        with pytest.raises(OutputError, match="another process has been putting files in place for a minute"):
            write(tmp_path / "o", b"new", None)
    assert not (tmp_path / "o").exists()


def killed_halfway(path: Path, after: str) -> None:
    """Leaves what a process leaves that is killed before the n-th renaming."""

    class Kill(BaseException):
        pass

    def stop() -> None:
        raise Kill

    real = commit._undo, Staging.discard, system.unlink
    commit._undo = lambda *_: None  # type: ignore[assignment]
    Staging.discard = Staging.leave  # type: ignore[method-assign]
    system.unlink = lambda _: None
    try:
        with pytest.raises(Kill), faults({"aside": 2, "main": 3}[after], stop, only="rename"):
            write(path, b"new", b"new")
    finally:
        commit._undo, Staging.discard, system.unlink = real  # type: ignore[method-assign]


@pytest.mark.parametrize(("after", "version", "said"), [("aside", b"old", "taken back"), ("main", b"new", "completed")])
def test_a_commit_that_was_killed_is_settled_by_whoever_comes_next(
    tmp_path: Path, after: str, version: bytes, said: str
) -> None:
    path = tmp_path / "o"
    write(path, b"old", b"old")
    killed_halfway(path, after)
    assert not beside(path).exists()
    assert path.read_bytes() == version
    with pytest.warns(UserWarning, match=f"a run was killed while it put this output in place; this was {said}"):
        assert both(path) == (version, version)
    assert set(visible(tmp_path)) == set(os.listdir(tmp_path)) == {"o", "o.more"}  # noqa: PTH208
    write(path, b"last", None)
    assert not beside(path).exists()


def test_a_file_that_replaced_an_output_since_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "o"
    write(path, b"old", b"old")
    killed_halfway(path, "main")
    path.write_bytes(b"by hand")
    with pytest.warns(UserWarning, match="this was given up: the file has been replaced since"):
        settle(tmp_path, "o")
    assert visible(tmp_path) == {"o": b"by hand"}


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/../../b", ".."])
def test_no_record_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    record = folder / hidden_name("o", ".commit")
    move = {"place": "o", "new": name, "old": None, "size": 0, "mtime_ns": 0}
    for stated in (
        {"system": "x", "staging": ".x.part", "moves": [move]},
        {"system": "x", "staging": name, "moves": [move | {"new": "victim"}]},
    ):
        record.write_text(json.dumps(stated))
        os.utime(record, (0, 0))
        with pytest.raises(OutputError, match="names a file outside of it; remove the record"):
            settle(folder, "o")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"moves": 1}', b"[" * 100_000, b"\xff"])
def test_a_record_that_was_not_written_to_its_end_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o").write_bytes(b"old")
    (tmp_path / hidden_name("o", ".commit")).write_bytes(content)
    settle(tmp_path, "o")
    assert os.listdir(tmp_path) == ["o"]  # noqa: PTH208


def test_another_users_commit_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o"
    write(path, b"old", b"old")
    killed_halfway(path, "main")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OutputError, match=r"cannot be settled \(it belongs to another user\)"):
        both(path)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="completed"):
        settle(tmp_path, "o")


@pytest.mark.parametrize("missing", [{"rename_new"}, {"rename_new", "link"}, {"rename_new", "link", "lock"}])
def test_file_systems_without_some_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: set[str]) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    for name in missing:
        monkeypatch.setattr(system, name, refuse)
    path = tmp_path / "o"
    write(path, b"one", b"one", overwrite=False)
    write(path, b"two", b"two")
    assert both(path) == (b"two", b"two")
    with pytest.raises(OutputError, match="has appeared during the run"):
        write(path, b"three", None, overwrite=False)
    assert both(path) == (b"two", b"two")
    assert len(os.listdir(tmp_path)) == 3  # noqa: PTH208


def test_a_folder_in_a_companions_place_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "o"
    write(path, b"old", None)
    beside(path).mkdir()
    (beside(path) / "mine").write_text("mine")
    for more in (None, b"new"):
        with pytest.raises(OSError, match="directory"):
            write(path, b"new", more)
    assert visible(tmp_path) == {"o": b"old", "o.more/mine": b"mine"}
