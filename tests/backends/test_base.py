"""Programs: what is handed over, what is loaded and run for it, and what is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap.backends.base import Backend, rows_needed
from layertap.backends.choice import choose, open_backend
from layertap.backends.facts import BackendRequest
from layertap.backends.pickles import pickle_reader
from layertap.errors import BackendError, OptionError, WeightsError
from layertap.features.program import Capture, Program
from layertap.packing import Segments, simple_segments

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.backends.torch.backend import TorchBackend  # noqa: E402 - needs torch
from layertap.backends.torch.fused import FusedBlock, FusedLinear  # noqa: E402

LAYERS = 3
LENGTHS = [4, 9, 1, 9]


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def batch(model):
    return model.pack(model.random_sequences(LENGTHS))


def tokens_of(batch) -> Segments:
    return simple_segments(batch.cu_seqlens[:-1], batch.cu_seqlens[1:])


def content_of(batch) -> Segments:
    """Without the first and the last row of each sequence; empty where there is nothing between them."""
    ends = batch.cu_seqlens[1:] - 1
    return simple_segments(np.minimum(batch.cu_seqlens[:-1] + 1, ends), ends)


@st.composite
def programs(draw):
    """(program, segments of the batch): folds, weights, reductions of tokens, content and odd segments, pooler."""
    num_rows = sum(LENGTHS)
    row = st.integers(0, num_rows)
    groups = draw(st.lists(st.lists(st.tuples(row, row).map(sorted), max_size=3).map(sorted), min_size=1, max_size=4))
    ranges = np.array([pair for group in groups for pair in group], dtype=np.int32).reshape(-1, 2)
    odd = Segments(
        begin=ranges[:, 0],
        end=ranges[:, 1],
        offsets=np.cumsum([0, *map(len, groups)]).astype(np.int32),
        weights=np.linspace(-1, 2, num_rows, dtype=np.float32) if draw(st.booleans()) else None,
    )
    captures = []
    for _ in range(draw(st.integers(1, 4))):
        layers = tuple(sorted(draw(st.sets(st.integers(0, LAYERS), min_size=1))))
        fold = draw(st.sampled_from(["sum", "max"]))
        weights = None
        if fold == "sum" and draw(st.booleans()):
            weights = tuple(draw(st.lists(st.floats(-2, 2, width=16), min_size=len(layers), max_size=len(layers))))
        # "content_by_position" stands for segments of any form here
        segments = draw(st.sampled_from([None, "tokens", "content", "content_by_position"]))
        reduce = draw(st.sampled_from(["first", "last", "sum", "max", "min"])) if segments else None
        captures.append(Capture(layers=layers, fold=fold, weights=weights, segments=segments, reduce=reduce))
    if draw(st.booleans()):
        captures.append(Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=True))
    highest = max(capture.layers[-1] for capture in captures)
    stop = draw(st.integers(highest, LAYERS))
    return Program(captures=tuple(dict.fromkeys(captures)), stop=stop, top_rows_only=draw(st.booleans())), odd


def naive(capture: Capture, states, pooled, segments):
    """A capture from transformers' states, in float64, row by row."""
    if capture.pooler:
        return pooled
    weights = capture.weights or (1,) * len(capture.layers)
    parts = [states[layer] * weight for layer, weight in zip(capture.layers, weights, strict=True)]
    folded = np.max(parts, axis=0) if capture.fold == "max" else np.sum(parts, axis=0)
    if capture.segments is None:
        return folded
    groups = segments[capture.segments]
    result = np.zeros((len(groups), folded.shape[1]))
    for s in range(len(groups)):
        ranges = range(groups.offsets[s], groups.offsets[s + 1])
        rows = [row for r in ranges for row in range(groups.begin[r], groups.end[r])]
        if rows and capture.reduce == "sum":
            scale = np.ones(len(folded)) if groups.weights is None else groups.weights
            result[s] = (folded[rows] * scale[rows][:, None]).sum(axis=0)
        elif rows:
            result[s] = {
                "first": folded[rows[0]],
                "last": folded[rows[-1]],
                "max": folded[rows].max(axis=0),
                "min": folded[rows].min(axis=0),
            }[capture.reduce]
    return result


@pytest.fixture(scope="module")
def truth(model):
    expected = model.expected(model.random_sequences(LENGTHS))
    return lambda: expected  # hypothesis would print the arrays


@pytest.fixture(
    scope="module",
    params=["torch fused", "torch plain", "native 1", "native 2", "native 5"],
)
def any_backend(request, model):
    """Each backend; of the native one with several numbers of threads."""
    kind, _, how = request.param.partition(" ")
    return model.native(threads=int(how)) if kind == "native" else model.backend(fused=how == "fused")


@given(case=programs())
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_program_equals_the_naive_one(any_backend, case, batch, truth):
    program, odd = case
    segments = {"tokens": tokens_of(batch), "content": content_of(batch), "content_by_position": odd}
    backend = any_backend
    found = backend.run(program, batch, segments)
    assert set(found) == set(program.captures)
    for capture, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, naive(capture, *truth(), segments), rtol=2e-4, atol=2e-4)


def program_of(*captures: Capture, stop: int | None = None, top_rows_only: bool = False) -> Program:
    highest = max(capture.layers[-1] for capture in captures)
    return Program(captures=captures, stop=highest if stop is None else stop, top_rows_only=top_rows_only)


def asked_parts(weights) -> set[str]:
    """`embeddings`, `layer.0`, ..., `pooler`: of which weights were asked for."""
    return {name.split(".")[0] if not name.startswith("encoder.") else name[8:15] for name in weights.asked}


FIRST_OF_2 = Capture(layers=(2,), segments="tokens", reduce="first")
POOLER = Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=True)


@pytest.mark.parametrize(
    ("captures", "expected"),
    [
        ([Capture(layers=(0,))], set()),
        ([FIRST_OF_2], {"layer.0", "layer.1"}),
        ([Capture(layers=(0, 1), segments="tokens", reduce="sum")], {"layer.0"}),
        ([Capture(layers=(LAYERS,))], {"layer.0", "layer.1", "layer.2"}),
        ([FIRST_OF_2, POOLER], {"layer.0", "layer.1", "layer.2", "pooler"}),
    ],
)
def test_only_what_is_reached_is_loaded(model, batch, captures, expected):
    weights = model.weights()
    backend = TorchBackend(model.spec, weights)
    assert weights.asked == []
    backend.run(program_of(*captures), batch, {"tokens": tokens_of(batch)})
    assert asked_parts(weights) == {"embeddings"} | expected
    asked = list(weights.asked)
    assert len(asked) == len(set(asked))
    backend.run(program_of(*captures), batch, {"tokens": tokens_of(batch)})
    assert weights.asked == asked, "read twice"


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def rows_run(request, monkeypatch):
    """(whether blocks are fused, rows through the feed-forward of each block as it runs)."""
    from layertap.backends.torch.encoder import Intermediate

    rows: list[int] = []
    if request.param:
        run, run_block = FusedLinear.__call__, FusedBlock.__call__

        def counting(self, x):
            if self.activation is not None:
                rows[-1] += len(x)  # a block's rows come in pieces
            return run(self, x)

        def counting_block(self, *arguments):
            rows.append(0)
            return run_block(self, *arguments)

        monkeypatch.setattr(FusedLinear, "__call__", counting)
        monkeypatch.setattr(FusedBlock, "__call__", counting_block)
    else:
        forward = Intermediate.forward

        def counting_forward(self, x):
            rows.append(len(x))
            return forward(self, x)

        monkeypatch.setattr(Intermediate, "forward", counting_forward)
    return request.param, rows


@pytest.mark.parametrize(
    ("captures", "top_rows_only", "expected"),
    [
        ([FIRST_OF_2], True, [23, 4]),
        ([FIRST_OF_2], False, [23, 23]),
        ([FIRST_OF_2, Capture(layers=(1,))], True, [23, 4]),
        ([FIRST_OF_2, Capture(layers=(2,), segments="tokens", reduce="last")], True, [23, 7]),
        ([FIRST_OF_2, Capture(layers=(2,), segments="content", reduce="sum")], True, [23, 4 + 2 + 7 + 7]),
        ([FIRST_OF_2, Capture(layers=(2,))], True, [23, 23]),
        ([POOLER], True, [23, 23, 4]),
        ([Capture(layers=(0,), segments="tokens", reduce="first")], True, []),
    ],
)
def test_only_the_rows_needed_go_through_the_top_block(model, batch, rows_run, captures, top_rows_only, expected):
    fused, rows = rows_run
    segments = {"tokens": tokens_of(batch), "content": content_of(batch)}
    model.backend(fused=fused).run(program_of(*captures, top_rows_only=top_rows_only), batch, segments)
    assert rows == expected


@pytest.mark.parametrize("layers", [(2,), (0, 2)])
@pytest.mark.parametrize("reduce", ["first", "last", "sum", "max", "min"])
def test_weights_and_ranges_of_segments_at_the_top_rows(model, batch, truth, layers, reduce):
    weights = np.linspace(-1, 2, batch.num_tokens, dtype=np.float32)
    ranges = np.array([[5, 7], [9, 9], [11, 13], [8, 10]], dtype=np.int32)
    segments = Segments(
        begin=ranges[:, 0], end=ranges[:, 1], offsets=np.array([0, 3, 3, 4], dtype=np.int32), weights=weights
    )
    capture = Capture(layers=layers, segments="content", reduce=reduce)
    program = program_of(capture, top_rows_only=True)
    assert rows_needed(program, {"content": segments}, batch.num_tokens).tolist() == [5, 6, 8, 9, 11, 12]
    found = model.backend().run(program, batch, {"content": segments})[capture]
    np.testing.assert_allclose(found, naive(capture, *truth(), {"content": segments}), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("stop", [0, 2])
@pytest.mark.parametrize("reduce", ["first", "last", "sum", "max", "min"])
def test_a_batch_without_any_row_needed(model, fused, stop, reduce):
    batch = model.pack(model.random_sequences([2, 2]))
    capture = Capture(layers=(stop,), segments="content", reduce=reduce)
    program = program_of(capture, top_rows_only=True)
    found = model.backend(fused=fused).run(program, batch, {"content": content_of(batch)})
    assert found[capture].tolist() == np.zeros((2, model.spec.hidden_size)).tolist()


def test_rows_needed_are_ascending_and_complete(batch):
    segments = {"tokens": tokens_of(batch)}
    first = Capture(layers=(2,), segments="tokens", reduce="first")
    assert rows_needed(program_of(first, top_rows_only=True), segments, 23).tolist() == [0, 4, 13, 14]
    assert rows_needed(program_of(first), segments, 23) is None
    mean = Capture(layers=(2,), segments="tokens", reduce="sum")
    assert rows_needed(program_of(first, mean, top_rows_only=True), segments, 23) is None


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "no-onednn"])
def test_fused_equals_plain(make_model, run_everything, monkeypatch, activation, precision, onednn):
    model = make_model(hidden_act=activation)
    sequences = model.random_sequences([1, 40, 3, 33, 3])
    plain = run_everything(model.backend(fused=False, precision=precision), model, sequences)
    if not onednn:
        monkeypatch.setattr("layertap.backends.torch.backend.onednn_works", lambda _: False)
    backend = model.backend(precision=precision)
    if not onednn:
        assert not backend.onednn
    found = run_everything(backend, model, sequences)
    tolerance = 2e-5 if precision == "float32" else 0.1
    for one, other in zip([*found[0], found[1]], [*plain[0], plain[1]], strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_without_the_operators_onednn_is_off(monkeypatch):
    from layertap.backends.torch import fused

    monkeypatch.setattr(fused.FusedLinear, "plus", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator")))
    assert not fused.onednn_works(torch.float32)


def test_results_of_one_run_outlive_the_next(model, batch):
    backend = model.backend()
    program = program_of(*(Capture(layers=(i,)) for i in range(LAYERS + 1)))
    first = backend.run(program, batch, {})
    kept = {capture: array.copy() for capture, array in first.items()}
    backend.run(program, model.pack(model.random_sequences(LENGTHS, seed=5)), {})
    for capture, array in first.items():
        np.testing.assert_array_equal(array, kept[capture])
        array += 1  # the caller's own


def test_runs_are_the_same_bit_for_bit_and_from_several_threads(model):
    backend = model.backend()
    captures = (*(Capture(layers=(i,), segments="tokens", reduce="sum") for i in range(LAYERS + 1)), POOLER)
    batches = [model.pack(model.random_sequences(LENGTHS, seed)) for seed in range(8)]

    def run(batch):
        return backend.run(program_of(*captures, top_rows_only=True), batch, {"tokens": tokens_of(batch)})

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, batches))
    for batch, found in zip(batches, together, strict=True):
        alone = run(batch)
        for capture in captures:
            np.testing.assert_array_equal(found[capture], alone[capture])


@pytest.mark.parametrize(
    "device", ["gpu", "cpu:0", "cpu:", "cuda:x", "cuda:", "cuda:1:2", "CPU", "", "mps", "cuda:\u0661"]
)
def test_unknown_devices_are_refused(model, device):
    with pytest.raises(OptionError, match="expected cpu, cuda or cuda:N"):
        model.backend(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(model):
    with pytest.raises(BackendError, match=r"(is built without CUDA|sees no CUDA device here); .*use device='cpu'"):
        model.backend(device="cuda")


@pytest.mark.parametrize(
    ("precision", "match"), [("float16", "needs a CUDA device"), ("fp32", "expected one of float32")]
)
def test_precisions_that_the_device_lacks_are_refused(model, precision, match):
    with pytest.raises(OptionError, match=match):
        model.backend(precision=precision)


@pytest.mark.parametrize("name", ["native", "torch"])
def test_backends_are_opened_by_name(model, name):
    if name == "native":
        pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    choice = choose(model.spec, BackendRequest(backend=name, device="cpu", precision="float32"))
    backend = open_backend(choice, model.spec, model.weights(), device="cpu", precision="float32")
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert backend.instruction_set


def test_states_in_any_stored_dtype(make_model, run_everything):
    model = make_model()
    sequences = model.random_sequences([5, 3])
    for name, dtype in (("F64", torch.float64), ("F16", torch.float16), ("BF16", torch.bfloat16)):
        rounded = {key: value.to(dtype) for key, value in model.reference.state_dict().items()}
        views = {
            key: type(model.views[key])(name, tuple(value.shape), memoryview(value.view(torch.uint8).numpy()).cast("B"))
            for key, value in rounded.items()
        }
        stored = type(model)(model.spec, model.reference, views)
        exact = type(model)(
            model.spec, model.reference, {key: view_of_float32(model, value) for key, value in rounded.items()}
        )
        for one, other in zip(
            run_everything(stored.backend(), stored, sequences)[0],
            run_everything(exact.backend(), exact, sequences)[0],
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def view_of_float32(model, tensor):
    array = tensor.float().numpy()
    kind = type(next(iter(model.views.values())))
    return kind("F32", array.shape, memoryview(array).cast("B"))


def test_weights_at_odd_addresses(make_model, run_everything):
    # safetensors headers of any length put tensors anywhere
    model = make_model()
    sequences = model.random_sequences([5, 3])
    expected = run_everything(model.backend(), model, sequences)[0]
    odd = {}
    for name, view in model.views.items():
        buffer = bytearray(view.buffer.nbytes + 1)
        buffer[1:] = view.buffer
        odd[name] = type(view)(view.dtype, view.shape, memoryview(buffer)[1:])
    shifted = type(model)(model.spec, model.reference, odd)
    for one, other in zip(run_everything(shifted.backend(), shifted, sequences)[0], expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_files_weights_are_not_changed(model, batch):
    before = {name: bytes(view.buffer) for name, view in model.views.items()}
    for fused in (True, False):
        model.backend(fused=fused).run(program_of(POOLER), batch, {"tokens": tokens_of(batch)})
    assert all(bytes(view.buffer) == before[name] for name, view in model.views.items())


def test_a_pickle_of_weights_is_read(tmp_path):
    weights = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(3)}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    views = pickle_reader()(tmp_path / "pytorch_model.bin")
    assert {name: (view.dtype, view.shape) for name, view in views.items()} == {
        "a": ("F32", (3, 2)),
        "b": ("BF16", (2,)),
        "c": ("int64", ()),
    }
    np.testing.assert_array_equal(views["a"].to_float32(), weights["a"].numpy())


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, [torch.ones(1)], {"a": 1}])
def test_a_pickle_of_more_than_weights_is_refused(tmp_path, capsys, content):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        pickle_reader()(tmp_path / "pytorch_model.bin")
    assert capsys.readouterr().out == ""


def test_a_damaged_pickle_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02damaged")
    with pytest.raises(WeightsError, match="not a file of weights only"):
        pickle_reader()(tmp_path / "pytorch_model.bin")
