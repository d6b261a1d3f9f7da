"""Every family by the code for CUDA, run on the processor, against the code for processors."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.backends.torch.backend import TorchBackend  # noqa: E402 - after the skips
from layertap.checkpoints.load import open_model  # noqa: E402
from layertap.checkpoints.source import locate  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.packing import Segments, pack  # noqa: E402
from layertap.testing.candidate import Candidate  # noqa: E402
from layertap.testing.families import random_sequences, two_token_types  # noqa: E402
from layertap.verify.reference import quiet_transformers  # noqa: E402
from tests.backends.cuda_on_cpu import cuda_kernels_on_cpu  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402

LENGTHS = (5, 1, 12, 12, 12, 40, 7, 30)
# Each step that a family may have: biases, windows, rotary angles, shared heads, RMS norms, distances, a convolution.
FAST = ("BERT", "MPNet", "ModernBERT", "EuroBERT", "DeBERTa-v2")


@pytest.fixture(
    scope="module",
    params=[row.name if row.name in FAST else pytest.param(row.name, marks=pytest.mark.slow) for row in ROWS],
)
def job(request, tmp_path_factory):
    (row,) = [row for row in ROWS if row.name == request.param]
    folder = tmp_path_factory.mktemp("model")
    with quiet_transformers():
        row.random_model(row.small).save_pretrained(folder)
    files = open_model(locate(folder))
    spec = files.spec
    sequences = random_sequences([min(n, spec.positions.max_length) for n in LENGTHS], spec.vocab_size)
    types = two_token_types(sequences) if spec.type_vocab_size > 1 else None
    batch = pack(sequences, position_ids=spec.positions.position_ids, token_type_ids=types)
    words = Segments(
        begin=np.array([0, 3, 6, 6, 30, 60], np.int32),
        end=np.array([2, 5, 6, 9, 40, 62], np.int32),
        offsets=np.array([0, 2, 3, 6], np.int32),
        weights=np.linspace(0.5, 2, batch.num_tokens).astype(np.float32),
    )
    return files, batch, {"tokens": segments_of(batch, "tokens"), "words": words}, sequences


def programs_of(spec) -> tuple[Program, Program]:
    last = spec.num_hidden_layers
    captures = [Capture(layers=(i,)) for i in range(spec.num_states)]
    captures += [
        Capture(layers=(1, last), weights=(0.5, 2.0), segments="words", reduce="sum"),
        Capture(layers=(1, last), fold="max", segments="tokens", reduce="max"),
        Capture(layers=(last,), segments="words", reduce="min"),
        Capture(layers=(last,), segments="tokens", reduce="last"),
        Capture(layers=(1,), attention="heads"),
        Capture(layers=(last,), attention="mean", heads=(1, 0)),
    ]
    few = (
        Capture(layers=(last,), segments="tokens", reduce="first"),
        Capture(layers=(1, last), segments="words", reduce="sum"),
    )
    return Program(captures=tuple(captures), stop=last), Program(captures=few, stop=last, top_rows_only=True)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_code_for_cuda_gives_what_the_code_for_processors_gives(job, monkeypatch, precision, fused):
    files, batch, segments, _ = job
    for program in programs_of(files.spec):
        expected = TorchBackend(files.spec, files.weights).run(program, batch, segments)
        with cuda_kernels_on_cpu(monkeypatch):
            backend = TorchBackend(files.spec, files.weights, precision=precision, fused=fused)
            assert backend.overlaps
            found = backend.run(program, batch, segments)
            again = backend.run(program, batch, segments)
        for capture, values in expected.items():
            assert found[capture].dtype == np.float32
            np.testing.assert_array_equal(found[capture], again[capture])
            rms = np.sqrt(np.square(values).mean())
            bound = 2e-5 if precision == "float32" else 0.15
            assert np.abs(found[capture] - values).max() <= bound * max(rms, 1e-3), capture


def test_gradients_by_the_code_for_cuda(job, monkeypatch):
    files, _, _, sequences = job
    candidate = Candidate(files)
    gradients = []
    for on_cuda in (False, True):
        encoder = candidate.encoder()
        inputs = candidate.packed_tensors(sequences, None)
        if on_cuda:
            with cuda_kernels_on_cpu(monkeypatch):
                _backward(encoder, inputs)
        else:
            _backward(encoder, inputs)
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        rms = float(expected.square().mean().sqrt())
        assert float((gradients[1][name] - expected).abs().max()) <= 2e-4 * max(rms, 0.2), (
            name
        )  # some are zero but for rounding


def _backward(encoder, inputs) -> None:
    loss = sum(((i + 1) * state).tanh().sum() for i, state in encoder.states(inputs))
    torch.autograd.backward(loss)
