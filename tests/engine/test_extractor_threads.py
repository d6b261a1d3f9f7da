"""One extractor shared by threads, executors, forked and spawned processes: each gets the results of a run alone."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import MOST_PLANS, Extractor
from layertap.errors import InputError
from layertap.records import AttentionMaps, Ragged, Record
from tests.selection import slow_except
from tests.tiny_models import random_model, save_model
from tests.writing import write

THREADS = 8
COMMON = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
COMMON |= {"max_position_embeddings": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "modernbert": ("ModernBert", {"pad_token_id": 0, "local_attention": 9}),
    "deberta": (
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 16, "share_att_key": True}
        | {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
    ),
}
FEATURES: list[Any] = [
    *(f"hidden_states[{layer}].mean" for layer in range(5)),
    *(f"attentions[{layer}].heads_mean" for layer in range(4)),
    *(f"hidden_states[{layer}].words(max)" for layer in (1, 4)),
    "hidden_states[2:].layer_mean.cls",
    "last_hidden_state",
    {"first": "hidden_states[1].cls", "last": "hidden_states[-1].mean(special=False)"},
]
POOLED = [*FEATURES, "pooler_output"]
TEXTS = ["the film was good", "a dull one", "", "hello world of words and tokens and texts " * 4, "bank"]


@pytest.fixture(scope="module", params=slow_except(FAMILIES, "bert"))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of the family with the tokenizer of `make_checkpoint`."""
    made = make_checkpoint(tmp_path_factory.mktemp(family) / family, num_hidden_layers=4)
    if family != "bert":
        pytest.importorskip("transformers")
        name, config = FAMILIES[family]
        vocabulary = json.loads((made / "config.json").read_text())["vocab_size"]
        values = COMMON | config | {"vocab_size": vocabulary}
        write(made / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        save_model(made, random_model(name, values))
    return made


@pytest.fixture(scope="module", params=["native", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("layertap.backends.native._native" if request.param == "native" else "torch")
    return request.param


@pytest.fixture(scope="module")
def features(family: str) -> list[Any]:
    return POOLED if family == "bert" else FEATURES


@pytest.fixture(scope="module")
def fresh(folder: Path, backend: str) -> Callable[[], Extractor]:
    """`fresh()`: an extractor that has loaded nothing."""
    return lambda: Extractor.from_pretrained(folder, backend=backend)


@pytest.fixture(scope="module")
def expected(fresh: Callable[[], Extractor], features: list[Any]) -> list[Any]:
    """Of each feature, what an extractor of its own gives."""
    return [fresh().extract(TEXTS, feature) for feature in features]


def arrays(result: Any) -> list[np.ndarray]:
    if isinstance(result, dict):
        return [array for value in result.values() for array in arrays(value)]
    return [result.values if isinstance(result, Ragged | AttentionMaps) else result]


@pytest.fixture(scope="module")
def wrong(backend: str, expected: list[Any]) -> Callable[[list[tuple[int, Any]]], int]:
    """`wrong([(feature's number, result), ...])`: how many differ: in a bit on native, by rounding on torch."""

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        if backend == "native":
            return np.array_equal(one, other)
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-6)

    def count(results: list[tuple[int, Any]]) -> int:
        return sum(
            not all(same(one, other) for one, other in zip(arrays(expected[i]), arrays(result), strict=True))
            for i, result in results
        )

    return count


def shares_of(features: list[Any], seed: int) -> list[list[int]]:
    """Which features each thread asks for, in its own order; every one is asked for twice."""
    order = np.random.default_rng(seed).permutation(np.arange(len(features)).repeat(2))
    return [share.tolist() for share in np.array_split(order, THREADS)]


@pytest.fixture(scope="module")
def trial(
    fresh: Callable[[], Extractor], features: list[Any], wrong: Callable[[list[tuple[int, Any]]], int]
) -> Callable[[int], int]:
    """`trial(seed)`: eight threads begin at once on a new extractor; how many results are wrong."""

    def once(seed: int) -> int:
        extractor = fresh()
        barrier = threading.Barrier(THREADS)

        def run(share: list[int]) -> list[tuple[int, Any]]:
            barrier.wait()
            return [(i, extractor.extract(TEXTS, features[i])) for i in share]

        with ThreadPoolExecutor(THREADS) as pool:
            return sum(map(wrong, pool.map(run, shares_of(features, seed))))

    return once


def test_threads_that_load_an_extractor_together(trial):
    assert [trial(seed) for seed in range(3)] == [0] * 3


@pytest.mark.parametrize(
    "trials", [pytest.param(6, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.stress)]
)
def test_threads_that_load_an_extractor_together_many_times(trial, trials):
    assert sum(trial(seed) for seed in range(trials)) == 0


def test_executors_of_asyncio(fresh, features, wrong):
    extractor = fresh()

    async def run() -> list[Any]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(THREADS) as pool:
            calls = [loop.run_in_executor(pool, extractor.extract, TEXTS, feature) for feature in features * 2]
            return await asyncio.gather(*calls)

    results = asyncio.run(run())
    assert wrong([(i % len(features), result) for i, result in enumerate(results)]) == 0


def test_threads_of_joblib(fresh, features, wrong):
    joblib = pytest.importorskip("joblib")
    extractor = fresh()
    calls = [joblib.delayed(extractor.extract)(TEXTS, feature) for feature in features * 2]
    results = joblib.Parallel(n_jobs=THREADS, backend="threading")(calls)
    assert wrong([(i % len(features), result) for i, result in enumerate(results)]) == 0


def test_streams_side_by_side(fresh, features, wrong):
    """Streams of one extractor, a batch of each in turn and each in a thread of its own."""
    extractor = fresh()
    records = [Record(row=i, text=text) for i, text in enumerate(TEXTS)]

    def run(feature: Any) -> Any:
        batches = list(extractor.stream(records, feature))
        assert [record.row for batch in batches for record in batch.records] == [0, 1, 2, 3, 4]
        assert len(batches) == 1
        found = dict(batches[0].features)
        return found if isinstance(feature, dict) else next(iter(found.values()))

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(run, features * 2))
    assert wrong([(i % len(features), result) for i, result in enumerate(results)]) == 0


def test_more_features_than_plans_are_kept(fresh, features, wrong):
    extractor = fresh()
    texts = [f"name{i} = hidden_states[{i % 5}].mean" for i in range(2 * MOST_PLANS)]
    with ThreadPoolExecutor(THREADS) as pool:
        plans = list(pool.map(extractor.plan, texts + list(features)))
    assert [next(iter(plan.features)) for plan in plans[: len(texts)]] == [f"name{i}" for i in range(len(texts))]
    assert wrong([(i, extractor.extract(TEXTS, feature)) for i, feature in enumerate(features)]) == 0


def test_an_error_in_another_thread(fresh, features, wrong):
    extractor = fresh()
    bad = [*TEXTS, Record(row=5, text="short", spans=((0, 99),))]

    def run(number: int) -> list[tuple[int, Any]]:
        if number % 2:
            with pytest.raises(InputError):
                extractor.extract(bad, "hidden_states[3].spans(mean)")
            return []
        i = number // 2 % len(features)
        return [(i, extractor.extract(TEXTS, features[i]))]

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(map(wrong, pool.map(run, range(4 * len(features))))) == 0


def test_the_provenance_that_threads_ask_for_together_is_whole(fresh):
    expected = fresh().provenance().as_dict()
    for _ in range(20):
        extractor = fresh()
        barrier = threading.Barrier(THREADS)

        def provenance(_: int, extractor: Extractor = extractor, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return extractor.provenance().as_dict()

        with ThreadPoolExecutor(THREADS) as pool:
            assert all(seen == expected for seen in pool.map(provenance, range(THREADS)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("parallelism", [None, "true"])
def test_forked_children(parallelism, fresh, features, wrong, monkeypatch):
    """An extractor that has run is used in forked children, loaded layers and new ones."""
    # The library of the tokenizers looks after forks only where this is not set.
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if parallelism is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallelism)
    extractor = fresh()
    assert wrong([(1, extractor.extract(TEXTS, features[1]))]) == 0
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child() -> None:
        send.send([(i, extractor.extract(TEXTS, features[i])) for i in range(len(features))])

    for _ in range(2):
        process = context.Process(target=child)
        process.start()
        try:
            assert receive.poll(60), "the child does not answer"
            assert wrong(receive.recv()) == 0
            process.join(60)
            assert process.exitcode == 0
        finally:
            process.kill()  # one that hangs would keep this process from ending


PICKLED = """
import pickle, sys
from pathlib import Path
extractor = pickle.loads(Path(sys.argv[1]).read_bytes())
texts, features = pickle.loads(Path(sys.argv[2]).read_bytes())
Path(sys.argv[3]).write_bytes(pickle.dumps([(i, extractor.extract(texts, f)) for i, f in enumerate(features)]))
"""


@pytest.mark.parametrize("family", ["bert"], scope="module")
def test_a_pickled_extractor_opens_the_same_folder_in_another_directory(
    folder, backend, features, wrong, tmp_path, monkeypatch
):
    """As a worker of joblib or of a cluster does; a relative path is not what it was there."""
    monkeypatch.chdir(folder.parent)
    extractor = Extractor.from_pretrained(folder.name, backend=backend)
    files = [tmp_path / name for name in ("extractor", "asked", "results")]
    files[0].write_bytes(pickle.dumps(extractor))
    files[1].write_bytes(pickle.dumps((TEXTS, features)))
    command = [sys.executable, "-c", PICKLED, *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert wrong(pickle.loads(files[2].read_bytes())) == 0
