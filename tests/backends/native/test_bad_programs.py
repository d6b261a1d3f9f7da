"""Programs that make no sense: refused with a reason by the bindings, whatever Python above them lets through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

from layertap.backends.native import _native
from layertap.features.program import Capture, Program

LAYERS, HIDDEN, HEADS, LENGTHS = 3, 32, 4, (5, 3)
TOKENS, SQUARES = sum(LENGTHS), sum(length**2 for length in LENGTHS)
ENDS = np.cumsum([0, *LENGTHS], dtype=np.int32)


@pytest.fixture(scope="module")
def model(make_model: Any) -> Any:
    return make_model()


@pytest.fixture(scope="module")
def encoder(model: Any) -> Any:
    """The compiled encoder alone, with all of BERT loaded."""
    backend = model.native()
    pooler = Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=True)
    batch = model.pack(model.random_sequences(LENGTHS))
    program = Program(captures=(pooler,), stop=LAYERS)
    from layertap.engine.segments import segments_of

    backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    return backend._encoder


def segments(begin=(0, 5), end=(5, 8), offsets=(0, 1, 2), weights=None):
    def ints(values):
        return np.array(values, np.int32)

    return _native.Segments(begin=ints(begin), end=ints(end), offsets=ints(offsets), weights=weights)


def run(encoder, *captures, own_segments=None, top_rows=None, stop=LAYERS, threads=1, **batch):
    fields = {
        "input_ids": np.arange(TOKENS, dtype=np.int32),
        "position_ids": np.arange(TOKENS, dtype=np.int32),
        "token_type_ids": None,
        "cu_seqlens": ENDS,
    }
    encoder.run(
        **(fields | batch),
        stop=stop,
        top_rows=None if top_rows is None else np.array(top_rows, np.int32),
        captures=list(captures),
        segments=[segments()] if own_segments is None else own_segments,
        threads=threads,
    )


def capture(floats, **fields):
    return _native.Capture(**({"layers": (LAYERS,), "out": np.zeros(floats, np.float32)} | fields))


REDUCED = {"segments": 0, "reduce": "first"}
POOLER = {**REDUCED, "pooler": True}
MAPS = {"layers": (2,), "attention": "heads"}


@pytest.mark.parametrize(
    ("floats", "fields", "why"),
    [
        (SQUARES, {**MAPS, **POOLER, "layers": (LAYERS,), "attention": "mean"}, "attention maps"),
        (2 * HIDDEN, {**MAPS, **POOLER, "layers": (LAYERS,)}, "attention maps"),
        (HEADS * SQUARES, {**MAPS, **REDUCED}, "attention maps"),
        (HEADS * SQUARES, {**MAPS, "layers": (1, 2)}, "one layer"),
        (HEADS * SQUARES, {**MAPS, "layers": (0,)}, "one layer"),
        (HEADS * SQUARES, {**MAPS, "weights": (2.0,)}, "attention maps"),
        (HEADS * SQUARES, {**MAPS, "fold": "max"}, "attention maps"),
        (SQUARES, {**MAPS, "heads": (HEADS,)}, "head"),
        (SQUARES, {**MAPS, "heads": (-1,)}, "head"),
        (5 * SQUARES, {**MAPS, "heads": (0,) * 5}, "more heads"),
        (HEADS * SQUARES - 1, MAPS, "another size"),
        (2 * HIDDEN, {**POOLER, "weights": (2.0,)}, "fold or weights"),
        (2 * HIDDEN, {**POOLER, "layers": (1,)}, "last state"),
        (TOKENS * HIDDEN, {"pooler": True}, "needs segments"),
        (TOKENS * HIDDEN, {"heads": (0,)}, "only of attention maps"),
        (TOKENS * HIDDEN, {"unnormed": True}, "before the final norm"),
        (TOKENS * HIDDEN, {"layers": ()}, "layers"),
        (TOKENS * HIDDEN, {"layers": (2, 1)}, "layers"),
        (TOKENS * HIDDEN, {"layers": (2, 2)}, "layers"),
        (TOKENS * HIDDEN, {"layers": (-1,)}, "layers"),
        (TOKENS * HIDDEN, {"layers": (LAYERS + 1,)}, "layers"),
        (TOKENS * HIDDEN, {"layers": (1, 2), "weights": (1.0,)}, "one weight a layer"),
        (TOKENS * HIDDEN, {"segments": 0}, "without a reduction"),
        (TOKENS * HIDDEN, {"reduce": "sum"}, "without a reduction"),
        (2 * HIDDEN, {"segments": 1, "reduce": "sum"}, "segments do not exist"),
        (2 * HIDDEN + 1, REDUCED, "another size"),
        (0, REDUCED, "another size"),
    ],
)
def test_captures_that_contradict_themselves_are_refused(floats, fields, why, encoder):
    with pytest.raises(ValueError, match=why):
        run(encoder, capture(floats, **fields))


def test_values_that_do_not_exist_are_refused_where_they_are_given():
    for fields, why in (
        ({"fold": "mean"}, "fold 'mean'"),
        ({"reduce": "median"}, "reduction 'median'"),
        ({"attention": "all"}, "attention maps 'all'"),
        ({"segments": -1}, "segments"),
        ({"heads": ()}, "heads"),
    ):
        with pytest.raises(ValueError, match=why):
            capture(1, **fields)
    for out in (np.zeros(4), np.zeros(8, np.float32)[::2], None):
        with pytest.raises(TypeError):
            _native.Capture(layers=(1,), out=out)
    frozen = np.zeros(4, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        _native.Capture(layers=(1,), out=frozen)


def test_two_captures_of_the_pooler_are_refused(encoder):
    with pytest.raises(ValueError, match="one capture of the pooler"):
        run(encoder, capture(2 * HIDDEN, **POOLER), capture(2 * HIDDEN, **POOLER))


def test_rows_that_a_reduction_needs_are_among_those_kept(encoder):
    first = {"segments": 0, "reduce": "first"}
    last = {"segments": 0, "reduce": "last"}
    run(encoder, capture(2 * HIDDEN, **first), top_rows=[0, 5])
    run(encoder, capture(2 * HIDDEN, **last), top_rows=[4, 7])
    for fields, rows in (
        (first, [0, 4]),
        (last, [4, 6]),
        ({**first, "reduce": "sum"}, [0, 1, 2, 4, 5, 6, 7]),
        (first, []),
    ):
        with pytest.raises(ValueError, match="other rows"):
            run(encoder, capture(2 * HIDDEN, **fields), top_rows=rows)
    with pytest.raises(ValueError, match="every row"):
        run(encoder, capture(TOKENS * HIDDEN), top_rows=[0])
    with pytest.raises(ValueError, match="every row"):
        run(encoder, capture(HEADS * SQUARES, layers=(LAYERS,), attention="heads"), top_rows=[0])


@pytest.mark.parametrize("extreme", [np.iinfo(np.int32).min, np.iinfo(np.int32).max])
def test_empty_ranges_may_lie_anywhere(encoder, extreme):
    """Nothing is computed from their ends, which would overflow."""
    empty = segments(begin=(extreme, 5), end=(np.iinfo(np.int32).min, 8))
    for reduce in ("first", "last", "sum", "max"):
        out = np.full((2, HIDDEN), 7, np.float32)
        run(encoder, capture(0, segments=0, reduce=reduce, out=out), own_segments=[empty], top_rows=[5, 6, 7])
        assert not out[0].any()
        assert np.isfinite(out[1]).all()
        assert out[1].any()


def test_arrays_of_other_types_are_copied_for_as_long_as_the_run(encoder):
    expected, out = np.zeros((2, HIDDEN), np.float32), np.zeros((2, HIDDEN), np.float32)
    reduced = {"segments": 0, "reduce": "sum"}
    run(encoder, capture(0, **reduced, out=expected))
    wide = _native.Segments(
        begin=np.array([0, 5]), end=np.array([5, 8]), offsets=np.array([0, 1, 2]), weights=np.ones(TOKENS)
    )
    run(encoder, capture(0, **reduced, out=out), own_segments=[wide])
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [0, -1, 1025, 20_000])
def test_a_number_of_threads_that_is_none_is_refused(encoder, threads):
    with pytest.raises(ValueError, match="threads: from 1 to 1024"):
        run(encoder, capture(TOKENS * HIDDEN), threads=threads)


def random_program(random: np.random.Generator) -> dict[str, Any]:
    """Arguments of a run, each of them wrong now and then."""

    def few(low: int, high: int, most: int = 4) -> list[int]:
        return random.integers(low, high, random.integers(0, most)).tolist()

    def odd(value: Any, *others: Any) -> Any:
        return others[random.integers(len(others))] if random.random() < 0.15 else value

    def one_segments() -> Any:
        count = int(random.integers(0, 4))
        begin, end = random.integers(-1, TOKENS + 1, count), random.integers(-1, TOKENS + 2, count)
        if random.random() < 0.7:
            begin, end = np.sort(random.integers(0, TOKENS, (2, count)), axis=0)
        begin, end = begin.astype(np.int32), end.astype(np.int32)
        if count and random.random() < 0.1:
            end[0] = np.iinfo(np.int32).min
        offsets = np.sort(random.integers(0, count + 1, 3)).astype(np.int32)
        offsets[0], offsets[-1] = odd(0, 1, -1), odd(count, count + 1)
        weights = odd(None, np.ones(TOKENS, np.float32), np.ones(3, np.float32))
        return _native.Segments(begin=begin, end=end, offsets=offsets, weights=weights)

    own = [one_segments() for _ in range(random.integers(0, 3))]

    def one_capture() -> Any:
        reduce = odd(None, "first", "last", "sum", "max", "min") if random.random() < 0.4 else "sum"
        attention = odd(None, "heads", "mean")
        layers = sorted(few(0, LAYERS + 1)) or [odd(LAYERS, -1, LAYERS + 1)]
        sizes = (TOKENS * HIDDEN, 2 * HIDDEN, HEADS * SQUARES, SQUARES, 2 * SQUARES, 0)
        size = sizes[1 if reduce and not attention else 2 if attention else 0]
        return _native.Capture(
            layers=layers,
            fold=odd("sum", "max"),
            weights=odd(None, [0.5] * len(layers), [1.0]),
            segments=odd(0 if reduce else None, None, 1, 2),
            reduce=reduce,
            pooler=odd(False, True),
            unnormed=odd(False, True),
            attention=attention,
            heads=odd(None, few(-1, HEADS + 1) or [0]),
            out=np.zeros(odd(size, *sizes), np.float32),
        )

    rows = None if random.random() < 0.6 else np.unique(random.integers(odd(0, -1), TOKENS + odd(0, 1), 6))
    return {
        "input_ids": random.integers(0, odd(60, 61), TOKENS).astype(np.int32),
        "position_ids": odd(np.arange(TOKENS, dtype=np.int32), None, np.full(TOKENS, 40, np.int32)),
        "token_type_ids": odd(None, np.full(TOKENS, random.integers(0, 3), np.int32), np.zeros(2, np.int32)),
        "cu_seqlens": odd(ENDS, np.array([0, 8], np.int32), np.array([0, 9], np.int32), np.array([0, 0, 8], np.int32)),
        "stop": odd(LAYERS, *range(-1, LAYERS + 2)),
        "top_rows": None if rows is None else rows.astype(np.int32),
        "captures": [one_capture() for _ in range(random.integers(0, 4))],
        "segments": own,
        "threads": odd(1, 2, 3, 0),
    }


@pytest.mark.parametrize(
    "programs",
    [
        1500,
        pytest.param(20_000, marks=pytest.mark.slow),
        pytest.param(200_000, marks=pytest.mark.stress),
    ],
)
def test_random_programs_run_or_are_refused(encoder, programs, report):
    """Whether they read or write where they must not is for the sanitizers to say (`.ci/sanitize`)."""
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(programs):
        try:
            encoder.run(**random_program(random))
        except ValueError:
            refused += 1
    report("programs that ran", programs - refused)
    assert programs / 20 < refused < programs * 19 / 20
