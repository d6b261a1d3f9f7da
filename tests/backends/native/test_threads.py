"""Threads that share a backend while it loads: every row has the bits that one thread alone gives.

`python -m tests.backends.native.test_threads 2` runs two trials of each family without pytest and torch: that is what
`.ci/sanitize` does under the thread sanitizer.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

from layertap.backends.native import _native
from layertap.backends.native.backend import NativeBackend
from layertap.engine.segments import segments_of
from layertap.features.program import Capture, Program
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, pack
from layertap.tensors import TensorView

THREADS = 8
LAYERS = 6
VOCABULARY = 60
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 1200,
    "type_vocab_size": 2,
    "pad_token_id": 1,
}
DISTANCES = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "position_buckets": 8,
    "max_relative_positions": 1200,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "pooler": {"model_type": "bert"},
    "shared blocks": {"model_type": "albert", "embedding_size": 20},
    "bias by distance": {"model_type": "mpnet"},
    "final norm and pooler": {"model_type": "megatron-bert"},
    "rotary positions": {"model_type": "modernbert", "local_attention": 20, "global_attn_every_n_layers": 2},
    "distances": {"model_type": "deberta-v2", **DISTANCES},
}
LENGTHS = ((3, 16, 5), (40, 1, 90), (9,), (7, 530), (2, 2, 2, 2), (61,), (520,), (30, 30))
"""One batch for each thread; those past 512 tokens make tables of angles and of distances grow."""


class RandomModel:
    """A spec, and random weights for it."""

    def __init__(self, family: str) -> None:
        config = SIZES | FAMILIES[family]
        self.spec: EncoderSpec = architecture(config["model_type"]).spec(ConfigReader(config))
        random = np.random.default_rng(0)
        self.views: dict[str, TensorView] = {}
        for name, shape in self.spec.parameters().items():
            values = random.normal(scale=shape[-1] ** -0.5 if len(shape) > 1 else 0.1, size=shape)
            array = (values + name.endswith("LayerNorm.weight")).astype(np.float32)
            self.views[name] = TensorView("F32", shape, memoryview(array).cast("B"))

    def weights(self, names: Iterable[str]) -> dict[str, TensorView]:
        return {name: self.views[name] for name in names}

    def backend(self, instruction_set: str, threads: int = 1) -> NativeBackend:
        return NativeBackend(
            self.spec, self.weights, precision="float32", threads=threads, instruction_set=instruction_set
        )

    def batches(self) -> list[PackedBatch]:
        random = np.random.default_rng(1)
        return [
            pack(
                [random.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths],
                position_ids=self.spec.positions.position_ids,
            )
            for lengths in LENGTHS
        ]


def programs(spec: EncoderSpec) -> list[Program]:
    """Programs in order of depth: while some threads run one, others load what the next one needs."""
    depths = [
        Program(captures=(Capture(layers=(i,), segments="tokens", reduce="sum"),), stop=i) for i in range(LAYERS + 1)
    ]
    maps = Program(captures=(Capture(layers=(2,), attention="mean"), Capture(layers=(3,))), stop=3)
    folded = Program(captures=(Capture(layers=(0, 4), fold="max"),), stop=4)
    first = Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=spec.pooler)
    top = Program(captures=(first,), stop=LAYERS, top_rows_only=True)
    return [*depths[:3], maps, folded, *depths[5:], top]


def results(backend: NativeBackend, program: Program, batch: PackedBatch) -> list[np.ndarray[Any, Any]]:
    arrays = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    return [arrays[capture] for capture in program.captures]


def wrong_rows(
    backend: NativeBackend, batches: list[PackedBatch], jobs: list[Program], expected: Any, seed: int
) -> int:
    """Run most programs in each of the threads, which begin at once, and count the rows that differ."""
    begin = threading.Barrier(THREADS)
    wrong, errors = [0] * THREADS, []

    def work(thread: int) -> None:
        order = np.flatnonzero(np.random.default_rng((seed, thread)).random(len(jobs)) < 0.7)
        begin.wait()
        try:
            for job in order:
                rows = results(backend, jobs[job], batches[thread])
                for own, alone in zip(rows, expected[job][thread], strict=True):
                    differ = own.view(np.int32) != alone.view(np.int32)
                    wrong[thread] += int(np.count_nonzero(differ.any(axis=-1)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return sum(wrong)


def stress(family: str, trials: int, instruction_set: str) -> int:
    """Return the number of wrong rows in trials of a backend of its own each."""
    model = RandomModel(family)
    batches, jobs, alone = model.batches(), programs(model.spec), model.backend(instruction_set)
    expected = [[results(alone, job, batch) for batch in batches] for job in jobs]
    return sum(
        wrong_rows(model.backend(instruction_set, threads=1 + trial % 2), batches, jobs, expected, trial)
        for trial in range(trials)
    )


@pytest.fixture
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switch_often")
@pytest.mark.parametrize(
    "trials", [4, pytest.param(16, marks=pytest.mark.slow), pytest.param(170, marks=pytest.mark.stress)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_threads_that_share_a_backend_from_its_first_run_on(family, trials, report):
    assert stress(family, trials, _native.instruction_sets()[0]) == 0
    report("trials", trials)


if __name__ == "__main__":
    sys.setswitchinterval(1e-5)
    for name in FAMILIES:
        wrong = stress(name, int(sys.argv[1]), _native.instruction_sets()[0])
        print(f"{name}: {sys.argv[1]} trials, {wrong} wrong rows", flush=True)  # noqa: T201
        assert wrong == 0
