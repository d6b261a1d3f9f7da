"""Inputs on remote file systems: found, read and watched as local ones are.

The file system in memory that fsspec brings stands for any store; `tests/data/test_remote_s3.py` has a real protocol.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.data import remote as remote_module
from layertap.data.input import Input, RepeatedInput
from layertap.data.inputs import InputSet
from layertap.data.remote import RemotePlace, Scheme, is_remote
from layertap.errors import InputError, OptionError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store(monkeypatch) -> Iterator[Callable[[str, bytes], None]]:
    """A function that writes files of the file system in memory, which counts as a remote one."""
    monkeypatch.setitem(
        remote_module.SCHEMES, "memory", Scheme(name="memory", package="fsspec", extra=None, is_writable=True)
    )
    system = fsspec.filesystem("memory")

    def put(path: str, content: bytes) -> None:
        system.pipe_file(path, content)

    yield put
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def parquet(count: int) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(count)]}), content, row_group_size=7)
    return content.getvalue()


@pytest.fixture
def corpus(store) -> str:
    for name, content in {
        "b.txt": b"text 0\ntext 1\n",
        "a/2.jsonl": b'{"text": "text 0"}\n{"text": "text 1"}\n',
        "a/x.csv.gz": gzip.compress(b"text\ntext 0\ntext 1\n"),
        "z.parquet": parquet(20),
        "README.md": b"",
        "a/.hidden/x.txt": b"",
        "features/layertap.json": b"{}",
        "features/data/shard.parquet": b"",
    }.items():
        store(f"/bucket/corpus/{name}", content)
    return "memory://bucket/corpus"


def names(*urls: str, **options) -> list[str]:
    return [file.name for file in InputSet.resolve(urls, **options)]


def test_folders_files_and_patterns(corpus):
    inputs = InputSet.resolve([corpus])
    assert [file.name for file in inputs] == ["a/2.jsonl", "a/x.csv.gz", "b.txt", "z.parquet"]
    assert inputs.notes == (
        f"{corpus}: left out 1 file of another ending (README.md), 1 folder of features (features), 1 hidden file",
    )
    assert names(f"{corpus}/") == names(corpus)
    assert names(f"{corpus}/b.txt", f"{corpus}/a") == ["2.jsonl", "b.txt", "x.csv.gz"]
    assert names(f"{corpus}/*.txt") == ["b.txt"]
    assert names(f"{corpus}/**/*.jsonl") == ["a/2.jsonl"]
    assert names(f"{corpus}/README.md", format="txt") == ["README.md"]


def test_every_kind_of_file_is_read(corpus, monkeypatch):
    for file in InputSet.resolve([corpus]):
        with file.input.open() as reader:
            texts = [record.text for record in reader]
        assert texts == [f"text {i}" for i in range(20 if file.name == "z.parquet" else 2)]
        with file.input.open(range(1, 2)) as reader:
            assert [record.row for record in reader] == [1]
            assert reader.can_be_reread
        assert len(list(RepeatedInput(file.input))) == len(texts)
        assert len(file.sha256()) == 64
        file.check_unchanged()


def test_a_remote_file_that_changes_is_noticed(corpus, store, monkeypatch):
    (file,) = InputSet.resolve([f"{corpus}/b.txt"])
    reader = file.input.open()
    assert next(reader).text == "text 0"
    store("/bucket/corpus/b.txt", b"other\n")
    with pytest.raises(InputError, match=r"memory://bucket/corpus/b\.txt changed while it was read: it had 14 bytes"):
        list(reader)
    with pytest.raises(InputError, match="changed while it was read"):
        file.check_unchanged()
    fsspec.filesystem("memory").rm_file("/bucket/corpus/b.txt")
    with pytest.raises(InputError, match=r"b\.txt: no such file"):
        file.check_unchanged()
    with pytest.raises(InputError, match=r"b\.txt: no such file"):
        file.input.open()


def test_inputs_can_be_sent_to_another_process(corpus):
    inputs = pickle.loads(pickle.dumps(InputSet.resolve([corpus])))
    place = pickle.loads(pickle.dumps(RemotePlace.of(f"{corpus}/b.txt")))
    assert place.entry() == RemotePlace.of(f"{corpus}/b.txt").entry()
    with inputs.files[2].input.open() as reader:
        assert [record.text for record in reader] == ["text 0", "text 1"]


def test_wrong_places(corpus, store):
    store("/bucket/empty/x.md", b"")
    for urls, message in {
        ("ftp://host/x.txt",): r"ftp:// is not read; there are hf://, s3://, gs://",
        (f"{corpus}/none.txt",): "no such file or folder",
        (f"{corpus}/none*.txt",): "no file matches this pattern",
        (f"{corpus}/features",): "is a folder of features and not of texts",
        ("memory://bucket/empty",): r"there is no input here: .*\(memory://bucket/empty: left out 1 file",
        (corpus, f"{corpus}/b.txt"): "is named by memory://bucket/corpus and by memory://bucket/corpus/b.txt",
        (f"{corpus}/README.md",): "the name does not say the format",
    }.items():
        with pytest.raises((InputError, OptionError), match=message):
            InputSet.resolve(urls)
    assert not is_remote("corpus/s3:/x.txt")
    assert not is_remote("-")


def test_whatever_a_library_raises_is_told_in_words(corpus, monkeypatch):
    class LibraryError(Exception):
        pass

    def fail(*_, **__):
        raise LibraryError("the server\nhung up")

    system = type(fsspec.filesystem("memory"))
    reader = Input(source=f"{corpus}/z.parquet").open()
    with monkeypatch.context() as patch:
        patch.setattr(system, "info", fail)
        with pytest.raises(InputError, match=r"b\.txt: cannot be read: the server hung up"):
            InputSet.resolve([f"{corpus}/b.txt"])
    with monkeypatch.context() as patch:
        patch.setattr(
            reader._source._raw, "_file", type("Broken", (), dict.fromkeys(("read", "seek"), fail) | {"close": bool})
        )
        with pytest.raises(InputError, match=r"z\.parquet: .*the server hung up"):
            list(reader)


def test_a_package_that_is_not_installed(monkeypatch):
    def fail(*_, **__):
        raise ImportError("no s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(InputError, match=r"s3:// needs the package s3fs; install it, or 'layertap\[cloud\]'"):
        RemotePlace.of("s3://bucket/x.txt")
