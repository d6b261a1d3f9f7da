"""The same parity on a CUDA device, where there is one."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

from layertap.errors import BackendError  # noqa: E402 - after the skips
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.packing import simple_segments  # noqa: E402

FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert"]
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LENGTHS = [1, 19, 2, 512, 40, 7, 7, 7]


@pytest.fixture(scope="module", params=FAMILIES)
def full(request, make_model):
    rows = 512 if request.param == "bert" else 514
    model = make_model(request.param, **BASE, vocab_size=5000, max_position_embeddings=rows)
    sequences = model.random_sequences(LENGTHS)
    return model, sequences, model.expected(sequences)


def test_float32(full, run_everything, error_over_rms, report):
    model, sequences, (states, pooled) = full
    found, found_pooled = run_everything(model.backend(device="cuda"), model, sequences)
    errors = [error_over_rms(*pair) for pair in zip(found, states, strict=True)]
    errors.append(error_over_rms(found_pooled, pooled))
    report("largest |error| / RMS", max(errors))
    assert max(errors) <= 2e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_through_the_variable_length_kernel(
    full, precision, run_everything, smallest_cosine, monkeypatch, report
):
    from layertap.backends.torch import attention

    calls = []
    varlen = attention._varlen
    monkeypatch.setattr(attention, "_varlen", lambda *args: calls.append(1) or varlen(*args))
    model, sequences, (states, pooled) = full
    found, found_pooled = run_everything(model.backend(device="cuda", precision=precision), model, sequences)
    cosines = [smallest_cosine(*pair) for pair in zip(found, states, strict=True)]
    cosines.append(smallest_cosine(found_pooled, pooled))
    report("smallest cosine", min(cosines))
    assert min(cosines) >= 0.999
    assert len(calls) == model.spec.num_hidden_layers


def test_half_precision_without_that_kernel(full, run_everything, smallest_cosine, monkeypatch):
    from layertap.backends.torch import attention

    # as on older devices, or with an older torch
    monkeypatch.setattr(attention, "_has_varlen", lambda _: False)
    model, sequences, (states, _) = full
    found, _ = run_everything(model.backend(device="cuda", precision="float16"), model, sequences)
    assert min(smallest_cosine(*pair) for pair in zip(found, states, strict=True)) >= 0.999


def test_head_sizes_that_the_kernel_does_not_take(make_model, run_everything, smallest_cosine):
    model = make_model(hidden_size=36, num_attention_heads=3)
    sequences = model.random_sequences([5, 1, 33])
    found, _ = run_everything(model.backend(device="cuda", precision="float16"), model, sequences)
    states, _ = model.expected(sequences)
    assert min(smallest_cosine(*pair) for pair in zip(found, states, strict=True)) >= 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
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


def test_gradients_on_the_device(make_model, error_over_rms):
    from layertap.backends.torch.encoder import PackedTensors
    from layertap.backends.torch.layout import Layout

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
        *_, (_, last) = encoder.states(packed)
        last[:, 0].sum().backward()
        grads.append(encoder.embeddings.word_embeddings.weight.grad.cpu().numpy())
    assert error_over_rms(grads[1], grads[0]) < 1e-3


def test_a_device_that_is_not_there(make_model):
    with pytest.raises(BackendError, match=r"this machine has \d+ CUDA device"):
        make_model().backend(device=f"cuda:{torch.cuda.device_count()}")
