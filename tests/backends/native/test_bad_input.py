"""What the C++ is given beside what it can use: refused with a reason or handled, never a crash."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

from layertap.backends.native import _native
from layertap.engine.segments import segments_of
from layertap.features.program import Capture, Program
from layertap.packing import Segments

LAYERS = 3
MEAN = Capture(layers=(LAYERS,), segments="tokens", reduce="sum")
STATES = Capture(layers=(LAYERS,))

NUMBERS = {
    "instruction_set": _native.instruction_sets()[-1],
    "precision": "float32",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "embedding_size": 32,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "pre_norm": False,
    "rms_norms": False,
    "gated": False,
    "projection_first": False,
    "layers": [(0, 0, -1)],
    "frequencies": [],
}


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def run(backend, batch, *captures, top_rows_only=False):
    program = Program(captures=captures, stop=LAYERS, top_rows_only=top_rows_only)
    return backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})


@pytest.mark.parametrize(
    ("field", "value"),
    [("input_ids", 60), ("input_ids", -1), ("position_ids", 40), ("position_ids", -7), ("token_type_ids", 2)],
)
def test_ids_beyond_a_table_are_refused(model, field, value):
    ids = model.random_sequences([5, 3])
    batch = model.pack(ids, [np.zeros(len(own), np.int32) for own in ids])
    changed = getattr(batch, field).copy()
    changed[6] = value
    with pytest.raises(ValueError, match=f"{field}: beyond the table"):
        run(model.native(), replace(batch, **{field: changed}), MEAN)


def test_ends_that_are_none_are_refused(model):
    batch = model.pack(model.random_sequences([5, 3]))
    for ends in ([0, 5, 9], [0, 9, 8], [0, 5, 5, 8], [1, 5, 8], [0], []):
        broken = replace(batch, cu_seqlens=np.array(ends, np.int32))
        program = Program(captures=(STATES,), stop=LAYERS)
        with pytest.raises(ValueError, match=r"cu_seqlens|the batch is empty"):
            model.native().run(program, broken, {})


def test_segments_outside_the_batch_are_refused(model):
    batch = model.pack(model.random_sequences([5, 3]))
    program = Program(captures=(MEAN,), stop=LAYERS)

    def segments(begin, end, offsets, weights=None):
        def ints(values):
            return np.array(values, np.int32)

        return {"tokens": Segments(begin=ints(begin), end=ints(end), offsets=ints(offsets), weights=weights)}

    for bad in (
        segments([0], [9], [0, 1]),
        segments([-1], [3], [0, 1]),
        segments([0], [3], [0, 2]),
        segments([0, 1], [3, 2], [0, 2, 1]),
        segments([0], [3], [0, 1], np.ones(3, np.float32)),
    ):
        with pytest.raises(ValueError, match="segments"):
            model.native().run(program, batch, bad)


def test_a_run_before_its_weights_is_refused():
    encoder = _native.Encoder(**NUMBERS)
    one = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="embeddings"):
        encoder.run(
            input_ids=one, position_ids=one, token_type_ids=None, cu_seqlens=np.array([0, 1], np.int32), stop=0,
            top_rows=None, captures=[], segments=[], threads=1,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"instruction_set": "sse2"}, "instruction set 'sse2'"),
        ({"precision": "float8"}, "precision 'float8'"),
        ({"num_attention_heads": 5}, "heads"),
        ({"hidden_size": 0}, "size"),
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"num_key_value_heads": 3}, "heads of keys and values"),
        ({"layers": [(0, -1, -1)]}, "layers"),
        ({"layers": [(0, 0, 0)]}, "layers"),
        ({"frequencies": [[1.0, 0.5]]}, "frequencies"),
        ({"precision": "bfloat16", "instruction_set": "avx2"}, "no products in bfloat16"),
    ],
)
def test_models_that_are_none_are_refused(change, why):
    with pytest.raises(ValueError, match=why):
        _native.Encoder(**(NUMBERS | change))


def test_vectors_of_distances_that_fit_nothing_are_refused():
    h = NUMBERS["hidden_size"]

    def load(encoder, rows=8, columns=h, norm=None, **others):
        encoder.load_embeddings(
            words=(np.zeros((9, h), np.float32), "F32"),
            distance_vectors=np.zeros((rows, columns), np.float32),
            distance_norm=None if norm is None else (norm, None),
            **others,
        )

    for bad in ({"rows": 7}, {"rows": 0}, {"columns": h + 1}):
        with pytest.raises(ValueError, match="vectors of distances"):
            load(_native.Encoder(**NUMBERS), **bad)
    with pytest.raises(ValueError, match="norm"):
        load(_native.Encoder(**NUMBERS), norm=np.ones(h + 1, np.float32))
    with pytest.raises(ValueError, match="or windows"):
        load(_native.Encoder(**(NUMBERS | {"layers": [(0, 4, -1)]})))
    with pytest.raises(ValueError, match="with a bias by distance"):
        load(_native.Encoder(**NUMBERS), distance_bias=np.zeros((4, 3), np.float32))
    encoder = _native.Encoder(**NUMBERS)
    with pytest.raises(ValueError, match="after their vectors"):
        encoder.reach_distances(np.zeros(3, np.int32))
    load(encoder)
    for bad in ([0, 1], [2, 1, 0], [-1, 0, 1], [6, 7, 8], []):
        with pytest.raises(ValueError, match="distances"):
            encoder.reach_distances(np.array(bad, np.int32))
    encoder.reach_distances(np.array([3, 4, 5], np.int32))


def test_embeddings_are_loaded_once_and_before_the_blocks():
    """Runs rely on them, and on how much memory they take, from the first run on."""
    h, f = NUMBERS["hidden_size"], NUMBERS["intermediate_size"]
    sizes = {"query": (h, h), "key": (h, h), "value": (h, h), "attention_output": (h, h)}
    dense = {name: (np.zeros(size, np.float32), None) for name, size in sizes.items()}
    dense |= {"intermediate": (np.zeros((f, h), np.float32), None), "output": (np.zeros((h, f), np.float32), None)}
    norm = (np.ones(h, np.float32), None)
    words = (np.zeros((9, h), np.float32), "F32")
    encoder = _native.Encoder(**NUMBERS)
    with pytest.raises(ValueError, match="before the blocks"):
        encoder.add_block(**dense, attention_norm=norm, feed_forward_norm=norm)
    encoder.load_embeddings(words=words)
    with pytest.raises(ValueError, match="loaded already"):
        encoder.load_embeddings(words=words, projection=(np.zeros((h, h), np.float32), None))
    for wrong, why in (
        ({"gate": dense["intermediate"]}, "gate"),
        ({"query": dense["output"]}, "shape"),
        ({"key": (dense["key"][0], np.zeros(h - 1, np.float32))}, "bias"),
        ({"attention_norm": None}, "norm of the block"),
        ({"attention_norm": (np.ones(h - 1, np.float32), None)}, "norm"),
        ({"distance_keys": dense["key"]}, "distances"),
    ):
        with pytest.raises(ValueError, match=why):
            encoder.add_block(**(dense | {"attention_norm": norm, "feed_forward_norm": norm} | wrong))
    assert encoder.bytes == 0
    encoder.add_block(**dense, attention_norm=norm, feed_forward_norm=norm)
    assert encoder.bytes > 0


def test_arrays_that_lie_apart_or_crooked(model):
    ids = model.random_sequences([5, 3])
    batch = model.pack(ids)
    expected = run(model.native(), batch, MEAN)[MEAN]
    apart = np.repeat(batch.input_ids, 2)[::2]
    crooked = np.frombuffer(b"\0" + batch.input_ids.tobytes(), dtype=np.uint8)[1:].view(np.int32)
    assert not apart.flags.c_contiguous
    assert not crooked.flags.aligned
    for other in (apart, crooked, batch.input_ids.astype(np.int64)):
        found = run(model.native(), replace(batch, input_ids=other), MEAN)[MEAN]
        assert found.tobytes() == expected.tobytes()


def test_one_token_the_longest_and_very_many(model):
    backend = model.native(threads=2)
    rows = model.pack(model.random_sequences([1, 40]))
    assert np.isfinite(run(backend, rows, MEAN)[MEAN]).all()
    many = 200_000
    batch = model.pack([np.array([i % 60], np.int32) for i in range(many)])
    found = run(backend, batch, MEAN)[MEAN]
    alone = run(backend, model.pack([np.array([7], np.int32)]), MEAN)[MEAN]
    assert (found[7::60] == alone).all()


def test_infinite_weights_stay_where_they_are(make_model):
    model = make_model(seed=3)
    words = model.views["embeddings.word_embeddings.weight"].to_float32().copy()
    words[7] = np.nan
    words[8] = np.inf
    model.views["embeddings.word_embeddings.weight"] = type(model.views["embeddings.LayerNorm.weight"])(
        "F32", words.shape, memoryview(words).cast("B")
    )
    good = np.array([1, 2, 3], np.int32)
    for instruction_set in _native.instruction_sets():
        backend = model.native(instruction_set=instruction_set)
        alone = run(backend, model.pack([good]), MEAN)[MEAN]
        found = run(backend, model.pack([np.array([7, 1], np.int32), good, np.array([8], np.int32), good]), MEAN)[MEAN]
        assert np.isnan(found[[0, 2]]).all()
        assert found[1].tobytes() == alone[0].tobytes()
        assert found[3].tobytes() == alone[0].tobytes()


def test_a_run_ends_on_ctrl_c_and_lets_other_threads_work(make_model):
    model = make_model(
        hidden_size=256,
        num_attention_heads=4,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        max_position_embeddings=600,
    )
    backend = model.native(threads=2)
    small = model.pack(model.random_sequences([4]))
    expected = run(backend, small, MEAN)[MEAN]
    some, times = 20, 50
    start = time.process_time()  # what else runs on the machine does not count
    run(backend, model.pack(model.random_sequences([512] * some)), MEAN)
    whole = times * (time.process_time() - start)
    batch = model.pack(model.random_sequences([512] * some * times))
    ticks = []

    def interrupt():
        for _ in range(5):
            time.sleep(whole / 100)
            ticks.append(time.perf_counter())  # needs the lock of the interpreter
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # what a shell starts in the background is given no handler
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        start = time.process_time()
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run(backend, batch, MEAN)
        taken = time.process_time() - start
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ticks) == 5
    assert taken < whole / 2
    assert run(backend, small, MEAN)[MEAN].tobytes() == expected.tobytes()
