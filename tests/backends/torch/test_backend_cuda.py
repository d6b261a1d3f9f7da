"""The same parity on a CUDA device, where there is one: precisions, paths, gradients, full batches, equal bits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

from layertap.backends.base import OutOfMemoryError  # noqa: E402 - after the skips
from layertap.backends.torch import varlen  # noqa: E402
from layertap.backends.torch.backend import TorchBackend  # noqa: E402
from layertap.backends.torch.encoder import PackedTensors  # noqa: E402
from layertap.backends.torch.layout import Layout  # noqa: E402
from layertap.checkpoints.load import open_model  # noqa: E402
from layertap.checkpoints.source import locate  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.errors import BackendError  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.packing import pack, simple_segments  # noqa: E402
from layertap.testing.families import random_sequences  # noqa: E402
from layertap.verify.reference import quiet_transformers  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402

FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert"]
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LENGTHS = [1, 19, 2, 512, 40, 7, 7, 7]
HALF = ["bfloat16", "float16"]


@pytest.fixture
def kernels(monkeypatch) -> Counter[str]:
    """Calls of each attention kernel."""
    calls: Counter[str] = Counter()
    for name in ("_flash", "_efficient", "_blocks", "_runs"):
        function = getattr(varlen, name)

        def counted(*args, _name=name, _function=function):
            calls[_name] += 1
            return _function(*args)

        monkeypatch.setattr(varlen, name, counted)
    return calls


@pytest.fixture(scope="module", params=FAMILIES)
def full(request, make_model):
    rows = 512 if request.param == "bert" else 514
    model = make_model(request.param, **BASE, vocab_size=5000, max_position_embeddings=rows)
    sequences = model.random_sequences(LENGTHS)
    return model, sequences, model.expected(sequences)


@pytest.mark.parametrize(("precision", "bound"), [("float32", 2e-5), ("float32-high", 2e-2)])
def test_float32(full, run_everything, error_over_rms, report, kernels, precision, bound):
    model, sequences, (states, pooled) = full
    torch.set_float32_matmul_precision("high")  # what the process has set does not matter
    try:
        found, found_pooled = run_everything(model.backend(device="cuda", precision=precision), model, sequences)
    finally:
        torch.set_float32_matmul_precision("highest")
    errors = [error_over_rms(*pair) for pair in zip(found, states, strict=True)]
    errors.append(error_over_rms(found_pooled, pooled))
    report("largest |error| / RMS", max(errors))
    assert max(errors) <= bound
    if precision == "float32-high":
        assert max(errors) > 2e-5, "TF32 was not used"
    assert kernels == {"_efficient": model.spec.num_hidden_layers}


@pytest.mark.parametrize("precision", HALF)
def test_half_precision(full, precision, run_everything, smallest_cosine, report, kernels):
    model, sequences, (states, pooled) = full
    found, found_pooled = run_everything(model.backend(device="cuda", precision=precision), model, sequences)
    cosines = [smallest_cosine(*pair) for pair in zip(found, states, strict=True)]
    cosines.append(smallest_cosine(found_pooled, pooled))
    report("smallest cosine", min(cosines))
    assert min(cosines) >= 0.999
    assert kernels == {"_flash": model.spec.num_hidden_layers}


def test_half_precision_on_older_devices(full, run_everything, smallest_cosine, monkeypatch, kernels):
    monkeypatch.setattr(varlen, "capability_of", lambda _: (7, 5))
    model, sequences, (states, _) = full
    found, _ = run_everything(model.backend(device="cuda", precision="float16"), model, sequences)
    assert min(smallest_cosine(*pair) for pair in zip(found, states, strict=True)) >= 0.999
    assert kernels == {"_efficient": model.spec.num_hidden_layers}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("size", "heads"), [(36, 3), (40, 2), (528, 2)])
def test_head_sizes(make_model, run_everything, smallest_cosine, kernels, precision, size, heads):
    """12 and 20 are padded, 264 is too large for the flash kernel."""
    model = make_model(hidden_size=size, num_attention_heads=heads)
    sequences = model.random_sequences([5, 1, 33])
    found, _ = run_everything(model.backend(device="cuda", precision=precision), model, sequences)
    states, _ = model.expected(sequences)
    assert min(smallest_cosine(*pair) for pair in zip(found, states, strict=True)) >= 0.999
    flash = precision == "float16" and size // heads <= 256
    assert kernels == {"_flash" if flash else "_efficient": model.spec.num_hidden_layers}


@pytest.fixture(scope="module", params=[row.name for row in ROWS])
def family(request, tmp_path_factory):
    (row,) = [row for row in ROWS if row.name == request.param]
    folder = tmp_path_factory.mktemp("model")
    with quiet_transformers():
        row.random_model(row.small).save_pretrained(folder)
    files = open_model(locate(folder))
    lengths = [min(n, files.spec.positions.max_length) for n in (5, 1, 12, 12, 12, 40, 7, 30)]
    sequences = random_sequences(lengths, files.spec.vocab_size)
    batch = pack(sequences, position_ids=files.spec.positions.position_ids)
    return files, batch, {"tokens": segments_of(batch, "tokens")}


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_every_family_against_the_processor(family, precision, smallest_cosine, error_over_rms):
    """States, few rows (where some sequences have no query, and heads are shared), and attention probabilities."""
    files, batch, segments = family
    last = files.spec.num_hidden_layers
    few = simple_segments(np.array([0, 6, 18]), np.array([1, 7, 19]))
    captures = (*(Capture(layers=(i,)) for i in range(last + 1)), Capture(layers=(last,), attention="heads"))
    programs = [
        (Program(captures=captures, stop=last), segments),
        (
            Program(
                captures=(Capture(layers=(last,), segments="words", reduce="first"),), stop=last, top_rows_only=True
            ),
            {"words": few},
        ),
    ]
    for program, rows in programs:
        expected = TorchBackend(files.spec, files.weights).run(program, batch, rows)
        found = TorchBackend(files.spec, files.weights, device="cuda", precision=precision).run(program, batch, rows)
        for capture, values in expected.items():
            if precision == "float32":
                assert error_over_rms(found[capture], values) <= 1e-4
            elif capture.attention is None:
                assert smallest_cosine(found[capture], values) >= 0.99
            else:
                assert np.abs(found[capture] - values).max() <= 0.1


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_top_rows_equal_the_full_pass(make_model, precision):
    model = make_model(hidden_size=64)
    batch = model.pack(model.random_sequences([5, 1, 33, 33, 12]))
    segments = {"content": simple_segments(np.array([0, 6, 6, 39, 72]), np.array([3, 6, 20, 40, 84]))}
    captures = tuple(Capture(layers=(3,), segments="content", reduce=reduce) for reduce in ("first", "last"))
    backend = model.backend(device="cuda", precision=precision)
    few = backend.run(Program(captures=captures, stop=3, top_rows_only=True), batch, segments)
    full_pass = backend.run(Program(captures=captures, stop=3), batch, segments)
    tolerance = 1e-5 if precision == "float32" else 0.05
    for capture in captures:
        np.testing.assert_allclose(few[capture], full_pass[capture], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_gradients_on_the_device(make_model, error_over_rms, precision):
    """In half precision under autocast, as in training."""
    model = make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch = model.pack(model.random_sequences([5, 1, 33, 33, 12]))
    grads = []
    for device in ("cpu", "cuda"):
        encoder = model.encoder().train().to(device)
        packed = PackedTensors(
            input_ids=torch.as_tensor(batch.input_ids, dtype=torch.long, device=device),
            position_ids=torch.as_tensor(batch.position_ids, dtype=torch.long, device=device),
            token_type_ids=None,
            layout=Layout.of(batch.lengths.tolist()),
        )
        half = device == "cuda" and precision != "float32"
        with torch.autocast(device, getattr(torch, precision) if half else torch.bfloat16, enabled=half):
            *_, (_, last) = encoder.states(packed)
        last[:, 0].float().sum().backward()
        grads.append(encoder.embeddings.word_embeddings.weight.grad.float().cpu().numpy())
    assert error_over_rms(grads[1], grads[0]) < (1e-3 if precision == "float32" else 0.3)


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_dropout_trains(make_model, precision, kernels):
    model = make_model(attention_probs_dropout_prob=0.5)
    encoder = model.encoder().train().to("cuda")
    packed = PackedTensors(
        input_ids=torch.ones(24, dtype=torch.long, device="cuda"),
        position_ids=torch.arange(24, device="cuda"),
        token_type_ids=None,
        layout=Layout.of([7, 17]),
    )
    half = precision != "float32"
    with torch.autocast("cuda", getattr(torch, precision) if half else torch.bfloat16, enabled=half):
        *_, (_, one) = encoder.states(packed)
        *_, (_, other) = encoder.states(packed)
    one.float().square().sum().backward()
    assert not torch.equal(one, other)
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    assert set(kernels) == {"_flash" if half else "_efficient"}


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_a_full_batch_twice_has_the_same_bits_and_computed_memory(make_model, precision):
    model = make_model("bert", **BASE, vocab_size=5000, max_position_embeddings=512)
    random = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < 65_536 - 512:
        lengths.append(int(random.integers(5, 512)))
    batch = model.pack(model.random_sequences(lengths))
    segments = {"tokens": segments_of(batch, "tokens")}
    program = Program(captures=(Capture(layers=(12,), segments="tokens", reduce="sum"),), stop=12)
    backend = model.backend(device="cuda", precision=precision)
    torch.cuda.reset_peak_memory_stats()
    (first,) = backend.run(program, batch, segments).values()
    peak = torch.cuda.max_memory_allocated()
    (second,) = backend.run(program, batch, segments).values()
    np.testing.assert_array_equal(first, second)
    assert peak < (3.9e9 if precision == "float32" else 2.0e9)


def test_nothing_waits_for_the_device_before_the_results(make_model):
    model = make_model(hidden_size=64)
    batch = model.pack(model.random_sequences([5, 1, 33, 33, 12]))
    segments = {"tokens": segments_of(batch, "tokens")}
    last = model.spec.num_hidden_layers
    program = Program(
        captures=(
            Capture(layers=(last,), segments="tokens", reduce="sum"),
            Capture(layers=(1,)),
        ),
        stop=last,
    )
    backend = model.backend(device="cuda", precision="bfloat16")
    backend.run(program, batch, segments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fetch = backend.start(program, batch, segments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert set(fetch()) == set(program.captures)


def test_memory_that_does_not_suffice(make_model):
    model = make_model("bert", **BASE, vocab_size=5000, max_position_embeddings=512)
    backend = model.backend(device="cuda")
    batch = model.pack(model.random_sequences([512] * 64))
    program = Program(captures=(Capture(layers=(12,)),), stop=12)
    torch.cuda.set_per_process_memory_fraction(0.005)
    try:
        with pytest.raises(OutOfMemoryError, match="ran out of memory with a batch of 32,768 tokens"):
            backend.run(program, batch, {})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(backend.run(program, batch, {})) == 1


def test_a_device_that_is_not_there(make_model):
    with pytest.raises(BackendError, match=r"this machine has cuda:0"):
        make_model().backend(device=f"cuda:{torch.cuda.device_count()}")
