"""A folder of features on an object store: the same bytes as on a disk, and the same commands.

The file system in memory that fsspec brings stands for a store; `tests/data/test_remote_s3.py` tests what it stands
for on S3.
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
from layertap.data.remote import Scheme
from layertap.errors import InputError, OptionError, OutputError, UsageError
from tests.faults import visible
from tests.writing import write

fsspec = pytest.importorskip("fsspec")

FEATURE = "v = hidden_states[1].mean"
OUTPUT = "memory://bucket/features/"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    scheme = Scheme(name="memory", package="fsspec", extra=None, is_writable=True)
    monkeypatch.setitem(remote_module.SCHEMES, "memory", scheme)
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("remote") / "tiny-bert"))


@pytest.fixture
def corpus(tmp_path: Path, store: Any) -> str:
    """The same two files on the disk and in the store, whose URL is returned."""
    for name, count in (("a", 12), ("b", 25)):
        rows = [{"text": f"text {i} " + "of some " * (i % 5), "id": f"{name}-{i}"} for i in range(count)]
        path = write(tmp_path / f"corpus/{name}.jsonl", rows)
        store.pipe_file(f"/bucket/corpus/{name}.jsonl", path.read_bytes())
    return "memory://bucket/corpus/"


@pytest.fixture
def make(extractor: Extractor) -> Callable[..., Any]:
    def made(inputs: Any, output: Any = OUTPUT, features: str = FEATURE, **options: Any) -> Any:
        return layertap.extract(inputs, output, features, **({"shard_records": 10, "model": extractor} | options))

    return made


def objects(store: Any) -> dict[str, bytes]:
    """The objects whose bytes follow from plan and inputs."""
    root = "/bucket/features/"
    names = [name.removeprefix(root) for name in store.find(root)]
    return {name: store.cat_file(root + name) for name in names if not name.startswith(("log/", "layertap.json"))}


def test_a_folder_on_a_store_has_the_bytes_of_one_on_a_disk(tmp_path, store, corpus, make):
    summary = make(corpus)
    assert summary.records == 37
    make(tmp_path / "corpus", f"{tmp_path / 'local'}/")
    expected = {n: c for n, c in visible(tmp_path / "local").items() if not n.startswith(("log/", "layertap.json"))}
    assert objects(store) == expected
    with layertap.open(OUTPUT) as file, layertap.open(tmp_path / "local") as local:
        assert np.array_equal(np.asarray(file["v"]), np.asarray(local["v"]))
        assert file.columns["file"][10:14] == ["a.jsonl"] * 2 + ["b.jsonl"] * 2
        assert np.array_equal(file.record("b-3")["v"], local.record("b-3")["v"])
        assert file.path == OUTPUT
    with layertap.open(f"{OUTPUT}{next(name for name in expected if name.endswith('.parquet'))}") as shard:
        assert len(shard) == 10


def test_a_run_goes_on_and_grows(store, corpus, make):
    make(corpus)
    finished = objects(store)
    for name in ("manifest.json", "records/shard-000001.json"):
        store.rm_file(f"/bucket/features/{name}")
    with pytest.raises(InputError, match="4 of 5 shards are there"):
        layertap.open(OUTPUT)
    with layertap.open(OUTPUT, partial=True) as file:
        assert (len(file), file.is_complete) == (35, False)
    make(corpus)
    assert objects(store) == finished
    with pytest.raises(UsageError, match="the folder was made with other settings"):
        make(corpus, features="v = hidden_states[2].mean")
    store.pipe_file("/bucket/corpus/c.txt", b"one\ntwo\n")
    assert make(corpus).records == 39
    assert {name for name in objects(store) if name.startswith("data/")} > {
        name for name in finished if name.startswith("data/")
    }


def test_status_and_export(tmp_path, store, corpus, make, capsys):
    make(corpus)
    assert main(["status", OUTPUT, "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == 5
    assert main(["export", OUTPUT, "-o", str(tmp_path / "all.npz")]) == 0
    with layertap.open(tmp_path / "all.npz") as file, layertap.open(OUTPUT) as folder:
        assert np.array_equal(np.asarray(file["v"]), np.asarray(folder["v"]))
    name = next(name for name in objects(store) if name.startswith("data/shard-000002"))
    store.pipe_file(f"/bucket/features/{name}", b"PAR1")
    with layertap.open(OUTPUT) as file, pytest.raises(InputError, match=r"shard-000002-\w+\.parquet: it has 4 bytes"):
        file["v"][20]
    assert main(["status", OUTPUT]) == 1
    make(corpus)
    assert main(["status", OUTPUT, "--verify"]) == 0


def test_what_fails_changes_nothing(store, corpus, make, monkeypatch):
    make(corpus)
    before = objects(store)
    store.pipe_file("/bucket/corpus/c.txt", b"one\ntwo\n")

    def fail(*_, **__):
        raise RuntimeError("the server hung up")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "pipe_file", fail)
        with pytest.raises(OutputError, match=r"cannot be written: the server hung up; what is finished stays"):
            make(corpus)
    assert objects(store) == before
    assert make(corpus).records == 39


def test_wrong_places(tmp_path, store, corpus, make):
    for inputs, output, message in (
        (corpus, "memory://bucket/corpus/features/", "stands in a folder that is read, or holds one"),
        ("memory://bucket/corpus/a.jsonl", "memory://bucket/corpus/", "there are objects of this prefix"),
        (corpus, "ftp://host/features/", "ftp:// is not read"),
    ):
        with pytest.raises((OptionError, OutputError, UsageError), match=message):
            make(inputs, output)
    store.pipe_file("/bucket/x.npz", b"PK\x03\x04")
    with pytest.raises(InputError, match="only folders of features and Parquet are opened remotely"):
        layertap.open("memory://bucket/x.npz")
    with pytest.raises(InputError, match="this is no folder of features"):
        layertap.open("memory://bucket/nothing/")
