"""How well the threads of a run are occupied, computed from the costs of its shards: nothing is timed."""

from __future__ import annotations

import numpy as np
import pytest

native = pytest.importorskip(
    "layertap.backends.native._native_testing", reason="the native kernels are not built for tests"
)

MINILM = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "layers": 6}
BERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "layers": 12}
models = pytest.mark.parametrize("model", [MINILM, BERT_BASE], ids=["minilm", "bert-base"])


def lengths_of(count: int, seed: int) -> list[int]:
    """Lengths like those of mixed English text: most short, one in ten cut at 512 tokens."""
    random = np.random.default_rng(seed)
    short = np.clip(np.exp(random.normal(3.6, 0.7, count)), 4, 512)
    return np.where(random.random(count) < 0.1, 512, short).astype(int).tolist()


def efficiency(lengths: list[int], threads: int, model: dict[str, int]) -> float:
    work, time = native.simulate(lengths, threads=threads, **model)
    return work / (threads * time)


@models
def test_one_thread_is_always_occupied(model):
    assert efficiency(lengths_of(30, 0), 1, model) == pytest.approx(1)


@models
@pytest.mark.parametrize("seed", range(10))
def test_two_threads_with_twenty_texts(model, seed):
    assert efficiency(lengths_of(20, seed), 2, model) >= 0.95


@models
@pytest.mark.parametrize("count", [100, 170])
@pytest.mark.parametrize("seed", range(5))
def test_sixteen_threads_with_a_hundred_texts_and_more(model, count, seed):
    assert efficiency(lengths_of(count, seed), 16, model) >= 0.95


@models
def test_one_long_text_is_shared(model):
    assert efficiency([512], 2, model) >= 0.95
    assert efficiency([512, *[16] * 40], 4, model) >= 0.85


def test_refuses_nothing_to_do():
    with pytest.raises(ValueError, match="at least one"):
        native.simulate([], threads=1, **MINILM)
