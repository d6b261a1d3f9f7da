"""Inputs and folders on S3, against a server of the package moto on this machine."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layertap.data.inputs import InputSet
from layertap.data.remote import RemotePlace
from layertap.errors import InputError, OutputError
from tests.data.folder.test_remote import check_folder
from tests.s3_server import s3_bucket

pytest.importorskip("s3fs", reason="s3fs is not installed (extra: cloud)")
pytest.importorskip("moto.server", reason="moto's server is not installed (moto[s3], flask, flask-cors)")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket() as url:
        yield url


def put(url: str, content: bytes) -> None:
    place = RemotePlace.of(url)
    place.system.pipe_file(place.path, content)


def test_inputs(bucket):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["text 0", "text 1"], "n": [3, 4]}), table)
    for name, content in {
        "b.txt": b"text 0\ntext 1\n",
        "a/x.jsonl": b'{"text": "text 0"}\n{"text": "text 1"}\n',
        "a/t.parquet": table.getvalue(),
        ".hidden.txt": b"",
    }.items():
        put(f"{bucket}/corpus/{name}", content)
    inputs = InputSet.resolve([f"{bucket}/corpus/"])
    assert [file.name for file in inputs] == ["a/t.parquet", "a/x.jsonl", "b.txt"]
    assert len({file.stamp for file in inputs}) == 3  # etags
    for file in inputs:
        with file.input.open() as reader:
            assert [record.text for record in reader] == ["text 0", "text 1"]
        file.check_unchanged()
    put(f"{bucket}/corpus/b.txt", b"TEXT 0\nTEXT 1\n")
    with pytest.raises(InputError, match=r"b\.txt changed while it was read"):
        inputs.files[2].check_unchanged()
    assert [file.name for file in InputSet.resolve([f"{bucket}/corpus/**/*.parquet"])] == ["a/t.parquet"]
    for url, message in {
        f"{bucket}/corpus/none.txt": "no such file or folder",
        "s3://nowhere/corpus/": "no such (file or folder|bucket)",
    }.items():
        with pytest.raises(InputError, match=message):
            InputSet.resolve([url])


def test_folders(bucket):
    check_folder(RemotePlace.of(f"{bucket}/features/"))
    with pytest.raises(OutputError, match="there is no such bucket"):
        check_folder(RemotePlace.of("s3://nowhere/features/"))


def test_a_server_that_does_not_answer(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    begin = time.perf_counter()
    with pytest.raises(InputError, match=r"s3://bucket/x\.txt: cannot be read: .*127\.0\.0\.1:1"):
        InputSet.resolve([f"{bucket}/x.txt"])
    assert time.perf_counter() - begin < 60
    s3fs.S3FileSystem.clear_instance_cache()
