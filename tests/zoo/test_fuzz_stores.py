"""Seeded mutations of what `layertap.open`, heads and tokenizers read: only our own errors come out.

`LAYERTAP_FUZZ=50 pytest tests/zoo/test_fuzz_stores.py -m slow` is the long run, 100,000 cases of each format.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import layertap
from layertap.data import open_writer
from layertap.engine.identity import ModelIdentity
from layertap.engine.options import Semantics
from layertap.errors import InputError, LayertapError, TokenizerError
from layertap.learn.heads.head import Head
from layertap.records import AttentionMaps, FeatureBatch, FeatureSchema, Ragged, Record
from layertap.text.tokenizer import TextTokenizer
from tests.mutation import mutated, mutated_bytes, ours, rewrite

CASES = 2_000
MOST_SECONDS = 20.0
"""Longest time of one case, on a busy machine; most take a millisecond."""

MOST_BYTES = 256 << 20
"""How much more memory a format's cases may take than the process had before them."""

SCHEMAS = (
    FeatureSchema(name="f", dtype="float32", shape=(2, 3), ragged=False),
    FeatureSchema(name="t", dtype="int8", shape=(4,), ragged=True),
    FeatureSchema(name="t.scale", dtype="float32", shape=(), ragged=True),
    FeatureSchema(name="m", dtype="float32", shape=(2,), ragged=False, maps=True),
)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_BYTES


def batch(ragged: bool) -> FeatureBatch:
    lengths = np.array([2, 0, 3])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(0)
    features: dict[str, Any] = {"f": rng.standard_normal((3, 2, 3)).astype(np.float32)}
    if ragged:
        features["t"] = Ragged(rng.integers(-9, 9, (5, 4)).astype(np.int8), ends)
        features["t.scale"] = Ragged(np.ones(5, np.float32), ends)
        features["m"] = AttentionMaps(rng.random(2 * 13).astype(np.float32), lengths, (2,))
    return FeatureBatch(records=[Record(row=i, text="", id=f"id-{i}") for i in range(3)], features=features)


def store(path: Path) -> bytes:
    single = path.suffix == ".npy"
    options: dict[str, Any] = {} if single else {"column_types": {"id": pa.string()}}
    schemas = SCHEMAS[:1] if single else SCHEMAS
    with open_writer(path, schemas=schemas, provenance={"features": {"f": "x"}}, **options) as writer:
        made = batch(not single)
        writer.write(FeatureBatch(records=made.records, features={s.name: made.features[s.name] for s in schemas}))
    return path.read_bytes()


def read_all(path: Path) -> None:
    began = time.process_time()
    try:
        with layertap.open(path) as file:
            for name in file.features:
                column = file[name]
                for i in range(min(len(column), 5)):
                    column[i]
                column[: min(len(column), 5)]
            _ = file.rows[:5]
            if file.ids is not None:
                _ = file.ids[:5]
                if len(file.ids) < 100 and list(file.ids).count("id-1") == 1:
                    file.record("id-1")
            repr(file)
    finally:
        assert time.process_time() - began < MOST_SECONDS


def header_of(content: bytes, ending: str) -> tuple[int, int]:
    """Where the part of a file begins and ends that says what the rest is."""
    if ending == "safetensors":
        return 0, 8 + int.from_bytes(content[:8], "little")
    if ending == "parquet":
        return len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content)
    if ending == "npz":
        return content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x05\x06")) - 400, len(content)
    return 0, 128


@pytest.mark.parametrize("ending", ["parquet", "safetensors", "npz", "npy"])
def test_feature_files(tmp_path, fuzzed, cases, ending):
    path = tmp_path / f"o.{ending}"
    content = store(path)
    read_all(path)
    source = random.Random(f"store {ending}")
    begin, end = header_of(content, ending)
    refused = 0
    for _ in range(number := cases(CASES)):
        if source.random() < 0.6:
            part = mutated_bytes(content[begin:end], source, end - begin)
            case = content[:begin] + part + content[end:]
        else:
            case = mutated_bytes(content, source, len(content))
        rewrite(path, case)
        refused += ours(lambda: read_all(path), case[:2000], InputError)
    fuzzed(number, refused)


def test_headers_of_safetensors_stores(tmp_path, fuzzed, cases):
    path = tmp_path / "o.safetensors"
    content = store(path)
    end = 8 + int.from_bytes(content[:8], "little")
    whole = json.loads(content[8:end])
    source = random.Random("store header")
    refused = 0
    for _ in range(number := cases(CASES)):
        case = mutated(whole, source)
        if source.random() < 0.3:
            case = whole | {"__metadata__": mutated(whole["__metadata__"], source)}
        text = json.dumps(case).encode()
        rewrite(path, struct.pack("<Q", len(text)) + text + content[end:])
        refused += ours(lambda: read_all(path), case, InputError)
    fuzzed(number, refused)


def test_offsets_that_overlap_run_backwards_or_are_doubled(tmp_path):
    path = tmp_path / "o.safetensors"
    content = store(path)
    end = 8 + int.from_bytes(content[:8], "little")
    whole = json.loads(content[8:end])
    for offsets in ([-24, 0], [8, 8], [0, 72], [24, 0], [0, 10**30], [0.0, 24.0], [0, 24, 48]):
        text = json.dumps(whole | {"f": whole["f"] | {"data_offsets": offsets}}).encode()
        rewrite(path, struct.pack("<Q", len(text)) + text + content[end:])
        with pytest.raises(InputError, match="expected a whole Parquet"):
            layertap.open(path)
    twice = content[8:end].rstrip()[:-1] + b',"f":' + json.dumps(whole["f"]).encode() + b"}"
    rewrite(path, struct.pack("<Q", len(twice)) + twice + content[end:])
    with pytest.raises(InputError, match="'f': expected once, found twice"):
        layertap.open(path)


@pytest.mark.parametrize(
    "header", ["(" * 4000, "[" * 3000 + "]" * 3000, "{'descr': " * 300, "'''", "\\", "1e999999", "\0"]
)
def test_headers_of_npy_that_python_cannot_evaluate(tmp_path, header):
    path = tmp_path / "o.npy"
    content = store(path)
    for text in (header, "{'descr': " + header + ", 'fortran_order': False, 'shape': (3, 2, 3), }"):
        data = text.encode() + b"\n"
        rewrite(path, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + content[128:])
        with pytest.raises(InputError, match="its header is damaged"):
            layertap.open(path)


def test_provenance_that_is_deep_or_no_object(tmp_path):
    path = tmp_path / "o.npy"
    store(path)
    for text in ("[" * 100_000, "[1]", '{"a": ' + "1" * 5000 + "}", '{"features": 5}', '{"features": [[1]]}', "\ud800"):
        (tmp_path / "o.npy.provenance.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        ours(lambda: read_all(path), text, InputError)


def test_tokenizers(tmp_path, folder_of_family, fuzzed, cases):
    path = tmp_path / "tokenizer.json"
    content = (folder_of_family / "tokenizer.json").read_text()
    whole = json.loads(content)
    few = whole | {"model": whole["model"] | {"vocab": dict(list(whole["model"]["vocab"].items())[:40])}}
    source = random.Random("tokenizer")
    refused = 0

    def read() -> None:
        tokenizer = TextTokenizer.load(tmp_path, model_type="modernbert")
        tokenizer.encode(["Hello, world! caf\u00e9", "", "a b"], offsets=True)
        tokenizer.encode(["a"], ["b"])

    for _ in range(number := cases(CASES)):
        if source.random() < 0.7:
            case: Any = json.dumps(mutated(few, source)).encode()
        else:
            case = mutated_bytes(json.dumps(few).encode(), source, len(content))
        rewrite(path, case)
        began = time.process_time()
        refused += ours(read, case[:2000], TokenizerError)
        assert time.process_time() - began < MOST_SECONDS, case
    fuzzed(number, refused)


@pytest.fixture(scope="session")
def folder_of_family(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert") / "sound")


def head_files(folder: Path) -> dict[str, bytes]:
    identity = ModelIdentity(
        name="m", location="m", commit=None, architecture="bert", sha256={"model.safetensors": "0" * 64}
    )
    head = Head(
        name="label",
        task="text",
        scheme=None,
        feature="hidden_states[-1].mean",
        labels=("neg", "pos"),
        weight=np.ones((2, 3), np.float32),
        bias=np.zeros(2, np.float32),
        mix=None,
        model=identity,
        semantics=Semantics(),
        options={"C": 1.0},
        metrics={"test": {"accuracy": 0.5}},
    )
    head.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_heads(tmp_path, fuzzed, cases):
    folder = tmp_path / "head"
    files = head_files(folder)
    Head.load(folder)
    stated = json.loads(files["head.json"])
    source = random.Random("heads")
    refused = 0
    for _ in range(number := cases(CASES)):
        name = source.choice([*files])
        if name == "head.json" and source.random() < 0.7:
            case = json.dumps(mutated(stated, source)).encode()
        else:
            case = mutated_bytes(files[name], source, len(files[name]))
        rewrite(folder / name, case)
        refused += ours(lambda: Head.load(folder), (name, case), LayertapError)
        rewrite(folder / name, files[name])
    fuzzed(number, refused)
