"""How much a text's numbers depend on what it shares a batch with: kernels take other paths at other sizes."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.engine.segments import segments_of
from layertap.features.program import Capture, Program

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TARGETS = (3, 9, 26, 70, 200)
BOUND = {"float32": 1e-5, "bfloat16": 0.1}
"""Largest |difference| over RMS. bfloat16 has steps of 2^-8, and other kernels may round them otherwise."""


@pytest.fixture(scope="module")
def minilm(minilm_folder, wrap_model):
    return wrap_model(transformers.BertModel.from_pretrained(minilm_folder))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batches", [2, pytest.param(8, marks=pytest.mark.stress)])
def test_vectors_hardly_depend_on_the_batch(minilm, precision, fused, batches, report):
    random = np.random.default_rng(0)
    vocabulary = np.arange(1000, minilm.spec.vocab_size)
    targets = [random.choice(vocabulary, length).astype(np.int32) for length in TARGETS]
    backend = minilm.backend(precision=precision, fused=fused)
    layers = minilm.spec.num_hidden_layers
    mean, first = (Capture(layers=(layers,), segments="tokens", reduce=reduce) for reduce in ("sum", "first"))

    def vectors(sequences, *, few_rows=False) -> np.ndarray:
        batch = minilm.pack(sequences)
        captures = (first,) if few_rows else (mean, first)
        program = Program(captures=captures, stop=layers, top_rows_only=few_rows)
        found = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
        return np.stack([found[first] if few_rows else found[mean] / batch.lengths[:, None], found[first]], axis=1)

    alone = np.concatenate([vectors([ids]) for ids in targets])
    rms = np.sqrt(np.square(alone).mean(axis=-1, keepdims=True))
    worst = 0.0
    for _ in range(batches):
        others = [random.choice(vocabulary, n).astype(np.int32) for n in random.integers(1, 90, random.integers(1, 12))]
        order = random.permutation(len(targets) + len(others))
        if random.random() < 0.5:
            order = np.array(sorted(order, key=lambda i: len([*targets, *others][i])))
        found = np.empty((len(order), *alone.shape[1:]), dtype=np.float32)
        found[order] = vectors([[*targets, *others][i] for i in order])
        worst = max(worst, float((np.abs(found[: len(targets)] - alone) / rms).max()))
        pruned = np.empty_like(found)
        pruned[order] = vectors([[*targets, *others][i] for i in order], few_rows=True)
        worst = max(worst, float((np.abs(pruned[: len(targets), 1] - alone[:, 1]) / rms[:, 1]).max()))
    report(f"{precision}: largest |difference| / RMS", worst)
    assert worst <= BOUND[precision]
