"""A folder of features on an object store: the same bytes as on a disk, and the same commands.

The file system in memory that fsspec brings stands for a store; behind the marker `slow`, the tests run on S3 too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layertap
from layertap import Extractor
from layertap.cli.main import main
from layertap.data import remote as remote_module
from layertap.data.remote import RemotePlace, Scheme
from layertap.errors import InputError, OptionError, OutputError, UsageError
from tests.faults import visible
from tests.s3_server import s3_bucket
from tests.writing import write

fsspec = pytest.importorskip("fsspec")

FEATURE = "v = hidden_states[1].mean"


class Store:
    """A bucket of some store, and its file system of fsspec."""

    def __init__(self, url: str, system: Any) -> None:
        self.url = url
        self.output = f"{url}/features/"
        self.system = system

    def put(self, name: str, content: bytes) -> None:
        self.system.pipe_file(f"bucket/{name}", content)

    def objects(self) -> dict[str, bytes]:
        """The objects of the folder of features whose bytes follow from plan and inputs."""
        self.system.invalidate_cache()
        paths = {path.partition("bucket/features/")[2]: path for path in self.system.find("bucket/features")}
        return {
            name: self.system.cat_file(path)
            for name, path in paths.items()
            if not name.startswith(("log/", "layertap.json"))
        }


# boto3's deprecations are not the project's errors.
@pytest.fixture(
    params=[
        "memory",
        pytest.param("s3", marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]),
    ]
)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "s3":
        with s3_bucket() as url:
            yield Store(url, fsspec.filesystem("s3"))
        return
    scheme = Scheme(name="memory", package="fsspec", extra=None, is_writable=True)
    monkeypatch.setitem(remote_module.SCHEMES, "memory", scheme)
    system = fsspec.filesystem("memory")
    yield Store("memory://bucket", system)
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("remote") / "tiny-bert"))


@pytest.fixture
def corpus(tmp_path: Path, store: Store) -> str:
    """The same two files on the disk and in the store, whose URL is returned."""
    for name, count in (("a", 12), ("b", 25)):
        rows = [{"text": f"text {i} " + "of some " * (i % 5), "id": f"{name}-{i}"} for i in range(count)]
        path = write(tmp_path / f"corpus/{name}.jsonl", rows)
        store.put(f"corpus/{name}.jsonl", path.read_bytes())
    return f"{store.url}/corpus/"


@pytest.fixture
def make(extractor: Extractor, store: Store) -> Callable[..., Any]:
    def made(inputs: Any, output: Any = None, features: str = FEATURE, **options: Any) -> Any:
        return layertap.extract(
            inputs, output or store.output, features, **({"shard_records": 10, "model": extractor} | options)
        )

    return made


def test_a_folder_on_a_store_has_the_bytes_of_one_on_a_disk(tmp_path, store, corpus, make):
    summary = make(corpus)
    assert summary.records == 37
    make(tmp_path / "corpus", f"{tmp_path / 'local'}/")
    expected = {n: c for n, c in visible(tmp_path / "local").items() if not n.startswith(("log/", "layertap.json"))}
    assert store.objects() == expected
    with layertap.open(store.output) as file, layertap.open(tmp_path / "local") as local:
        assert np.array_equal(np.asarray(file["v"]), np.asarray(local["v"]))
        assert file.columns["file"][10:14] == ["a.jsonl"] * 2 + ["b.jsonl"] * 2
        assert np.array_equal(file.record("b-3")["v"], local.record("b-3")["v"])
        assert file.path == store.output
    with layertap.open(f"{store.output}{next(name for name in expected if name.endswith('.parquet'))}") as shard:
        assert len(shard) == 10


def test_a_run_goes_on_and_grows(store, corpus, make):
    make(corpus)
    finished = store.objects()
    for name in ("manifest.json", "records/shard-000001.json"):
        store.system.rm_file(f"bucket/features/{name}")
    with pytest.raises(InputError, match="4 of 5 shards are there"):
        layertap.open(store.output)
    with layertap.open(store.output, partial=True) as file:
        assert (len(file), file.is_complete) == (35, False)
    make(corpus)
    assert store.objects() == finished
    with pytest.raises(UsageError, match="the folder was made with other settings"):
        make(corpus, features="v = hidden_states[2].mean")
    store.put("corpus/c.txt", b"one\ntwo\n")
    assert make(corpus).records == 39
    assert {name for name in store.objects() if name.startswith("data/")} > {
        name for name in finished if name.startswith("data/")
    }


def test_status_and_export(tmp_path, store, corpus, make, capsys):
    make(corpus)
    assert main(["status", store.output, "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == 5
    assert main(["export", store.output, "-o", str(tmp_path / "all.npz")]) == 0
    with layertap.open(tmp_path / "all.npz") as file, layertap.open(store.output) as folder:
        assert np.array_equal(np.asarray(file["v"]), np.asarray(folder["v"]))
    name = next(name for name in store.objects() if name.startswith("data/shard-000002"))
    store.put(f"features/{name}", b"PAR1")
    with (
        layertap.open(store.output) as file,
        pytest.raises(InputError, match=r"shard-000002-\w+\.parquet: it has 4 bytes"),
    ):
        file["v"][20]
    assert main(["status", store.output]) == 1
    make(corpus)
    assert main(["status", store.output, "--verify"]) == 0


def test_what_fails_changes_nothing(store, corpus, make, monkeypatch):
    make(corpus)
    before = store.objects()
    store.put("corpus/c.txt", b"one\ntwo\n")

    def fail(*_, **__):
        raise RuntimeError("the server hung up")

    with monkeypatch.context() as patch:
        patch.setattr(
            RemotePlace.of(store.output).system, "pipe_file", fail
        )  # fsspec keeps one system for equal options
        with pytest.raises(OutputError, match=r"cannot be written: the server hung up; what is finished stays"):
            make(corpus)
    assert store.objects() == before
    assert make(corpus).records == 39


def test_wrong_places(tmp_path, store, corpus, make):
    for inputs, output, message in (
        (corpus, f"{store.url}/corpus/features/", "stands in a folder that is read, or holds one"),
        (f"{store.url}/corpus/a.jsonl", f"{store.url}/corpus/", "there are objects of this prefix"),
        (corpus, "ftp://host/features/", "ftp:// is not read"),
    ):
        with pytest.raises((OptionError, OutputError, UsageError), match=message):
            make(inputs, output)
    store.put("x.npz", b"PK\x03\x04")
    with pytest.raises(InputError, match="only folders of features and Parquet are opened remotely"):
        layertap.open(f"{store.url}/x.npz")
    with pytest.raises(InputError, match="this is no folder of features"):
        layertap.open(f"{store.url}/nothing/")
