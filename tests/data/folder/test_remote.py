"""Folders on object stores: each file appears whole, under a name that is given once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from layertap.data import remote as remote_module
from layertap.data.folder import remote as remote_folder_module
from layertap.data.folder.remote import RemoteFiles, RemoteFolder
from layertap.data.remote import RemotePlace, Scheme
from layertap.errors import InputError, OutputError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def root(monkeypatch) -> Iterator[RemotePlace]:
    """A folder of the file system in memory, which counts as a remote one."""
    scheme = Scheme(name="memory", package="fsspec", extra=None, is_writable=True)
    monkeypatch.setitem(remote_module.SCHEMES, "memory", scheme)
    yield RemotePlace.of("memory://bucket/features/")
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


def check_folder(root: RemotePlace) -> None:
    """Do all that a run does to its folder; `test_remote_s3.py` does the same on S3."""
    files = RemoteFiles(root=root)
    assert files.read("layertap.json") is None
    assert files.size("layertap.json") is None
    with RemoteFolder(root) as folder:
        folder.make("data", "records")
        assert folder.names("data") == []
        assert folder.write_new("layertap.json", b"plan")
        assert not folder.write_new("layertap.json", b"another plan")
        assert files.read("layertap.json") == b"plan"
        folder.replace("layertap.json", b"grown plan")
        assert (files.read("layertap.json"), files.size("layertap.json")) == (b"grown plan", 10)
        for content, is_named, replace_other, left in (
            (b"shard", True, False, b"shard"),
            (b"shard", False, True, b"shard"),
            (b"damaged", False, False, b"shard"),
            (b"longer shard", True, True, b"longer shard"),
        ):
            staged = folder.staged_place("x.parquet")
            staged.write_bytes(content)
            assert folder.publish(staged, "data/x.parquet", replace_other=replace_other) is is_named
            assert not staged.exists()
            assert files.read("data/x.parquet") == left
        assert files.sha256("data/x.parquet") == hashlib.sha256(b"longer shard").hexdigest()
        assert folder.names("data") == ["x.parquet"]
        scratch = folder.staged_place("y").parent
        folder.remove("data/x.parquet")
        folder.remove("data/x.parquet")
        assert folder.names("data") == []
        with pytest.raises(OSError, match="no such file"):
            files.sha256("data/x.parquet")
    assert not scratch.exists()


def test_a_folder_in_memory(root):
    check_folder(root)
    assert RemoteFiles(root=root).name == "memory://bucket/features"


def test_a_store_that_cannot_write_on_condition(root, monkeypatch):
    system = type(root.system)
    pipe_file = system.pipe_file

    def refuse(self, path, value, mode="overwrite"):
        if mode == "create":
            raise NotImplementedError("A header you provided implies functionality that is not implemented")
        return pipe_file(self, path, value)

    monkeypatch.setattr(system, "pipe_file", refuse)
    check_folder(root)


class AnswerError(OSError):
    """As s3fs raises an error of botocore: with the answer of the store on its cause."""

    def __init__(self, code: str) -> None:
        super().__init__(f"an answer {code}")
        self.__cause__ = OSError()
        self.__cause__.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(
    ("code", "times", "is_written"),
    [
        ("PreconditionFailed", 1, False),
        ("ConditionalRequestConflict", 2, True),
        ("NotImplemented", 9, True),
        ("ConditionalRequestConflict", 9, None),
        ("SlowDown", 1, None),
    ],
)
def test_answers_to_conditional_writes(root, monkeypatch, code, times, is_written):
    monkeypatch.setattr(remote_folder_module, "CONFLICT_WAIT", 0)
    system = type(root.system)
    pipe_file, left = system.pipe_file, [code] * times

    def answer(self, path, value, mode="overwrite"):
        if mode == "create" and left:
            raise AnswerError(left.pop())
        return pipe_file(self, path, value)

    monkeypatch.setattr(system, "pipe_file", answer)
    with RemoteFolder(root) as folder:
        if is_written is None:
            with pytest.raises(OutputError, match=f"an answer {code}"):
                folder.write_new("x", b"content")
        else:
            assert folder.write_new("x", b"content") is is_written
    assert (RemoteFiles(root=root).read("x") == b"content") is (is_written is True)


def test_a_store_that_ignores_conditions(root, monkeypatch):
    system = type(root.system)
    pipe_file = system.pipe_file
    monkeypatch.setattr(system, "pipe_file", lambda self, path, value, **_: pipe_file(self, path, value))
    check_folder(root)


def test_what_fails_is_named_and_changes_nothing(root, monkeypatch):
    with RemoteFolder(root) as folder:
        folder.replace("manifest.json", b"before")

        def fail(*_, **__):
            raise RuntimeError("the server hung up")

        monkeypatch.setattr(type(root.system), "pipe_file", fail)
        for write, name in ((folder.write_new, "plan.json"), (folder.replace, "manifest.json")):
            with pytest.raises(OutputError, match=rf"features/{name}: cannot be written: the server"):
                write(name, b"after")
        monkeypatch.setattr(type(root.system), "cat_file", fail)
        with pytest.raises(InputError, match=r"manifest\.json: cannot be read: the server hung up"):
            RemoteFiles(root=root).read("manifest.json")
        monkeypatch.undo()
        assert root.system.cat_file("/bucket/features/manifest.json") == b"before"


def test_places_that_are_read_only(root):
    read_only = RemotePlace(
        url="hf://datasets/a/b",
        scheme=remote_module.SCHEMES["hf"],
        system=root.system,
        path="datasets/a/b",
    )
    with pytest.raises(OutputError, match="hf:// is read only here; write to a local folder, s3:// or gs://"):
        RemoteFolder(read_only)
