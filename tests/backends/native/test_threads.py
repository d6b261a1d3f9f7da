"""Threads that share a backend while it loads: every row has the bits that one thread alone gives."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
transformers = pytest.importorskip("transformers")

from layertap.backends.native import _native  # noqa: E402 - after what may skip
from layertap.backends.native.backend import NativeBackend  # noqa: E402
from layertap.checkpoints.load import ModelFiles, open_model  # noqa: E402
from layertap.checkpoints.source import locate  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.packing import PackedBatch, pack  # noqa: E402
from layertap.testing.families import random_sequences  # noqa: E402
from tests.tiny_models import random_model, save_model  # noqa: E402

THREADS = 8
LAYERS = 6
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 1200,
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
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "pooler": ("Bert", {}),
    "shared blocks": ("Albert", {"embedding_size": 20}),
    "bias by distance": ("MPNet", {}),
    "final norm and pooler": ("MegatronBert", {}),
    "rotary positions": ("ModernBert", {"local_attention": 20, "global_attn_every_n_layers": 2}),
    "distances": ("DebertaV2", DISTANCES),
}
LENGTHS = ((3, 16, 5), (40, 1, 90), (9,), (7, 530), (2, 2, 2, 2), (61,), (1040,), (30, 30))
"""One batch for each thread; those past 512 and 1024 tokens make tables of angles and of distances grow."""


def programs(files: ModelFiles) -> list[Program]:
    """Programs in order of depth: while some threads run one, others load what the next one needs."""
    depths = [
        Program(captures=(Capture(layers=(i,), segments="tokens", reduce="sum"),), stop=i) for i in range(LAYERS + 1)
    ]
    maps = Program(captures=(Capture(layers=(2,), attention="mean"), Capture(layers=(3,))), stop=3)
    folded = Program(captures=(Capture(layers=(0, 4), fold="max"),), stop=4)
    first = Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=files.spec.pooler)
    return [
        *depths[:3], maps, folded, *depths[5:], Program(captures=(first,), stop=LAYERS, top_rows_only=True)
    ]  # fmt: skip


def results(backend: NativeBackend, program: Program, batch: PackedBatch) -> list[np.ndarray[Any, Any]]:
    found = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    return [found[capture] for capture in program.captures]


def wrong_rows(
    backend: NativeBackend, batches: list[PackedBatch], jobs: list[Program], expected: Any, seed: int
) -> int:
    """Run every program on every batch in threads that begin at once, and count the rows that differ."""
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
    assert not errors
    return sum(wrong)


@pytest.fixture(scope="module", params=FAMILIES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    prefix, fields = FAMILIES[request.param]
    return open_model(locate(save_model(tmp_path_factory.mktemp(prefix), random_model(prefix, SIZES | fields))))


@pytest.fixture
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switch_often")
@pytest.mark.parametrize("trials", [4, pytest.param(170, marks=pytest.mark.slow)])
def test_threads_that_share_a_backend_from_its_first_run_on(files, trials, report):
    def backend(threads: int = 1) -> NativeBackend:
        return NativeBackend(
            files.spec,
            files.weights,
            precision="float32",
            threads=threads,
            instruction_set=_native.instruction_sets()[0],
        )

    batches = [
        pack(random_sequences(lengths, SIZES["vocab_size"], seed=i), position_ids=files.spec.positions.position_ids)
        for i, lengths in enumerate(LENGTHS)
    ]
    jobs, alone = programs(files), backend()
    expected = [[results(alone, job, batch) for batch in batches] for job in jobs]
    wrong = sum(wrong_rows(backend(1 + trial % 2), batches, jobs, expected, trial) for trial in range(trials))
    report("trials", trials)
    assert wrong == 0
