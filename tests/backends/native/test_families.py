"""Families beside BERT, on every instruction set: against transformers, whole, by rows, and with attention maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from layertap.models.positions import Disentangled, RelativeBias  # noqa: E402
from layertap.packing import PackedBatch, pack  # noqa: E402
from layertap.testing.families import random_sequences  # noqa: E402
from layertap.verify.reference import Reference  # noqa: E402
from tests.tiny_models import random_model, save_model  # noqa: E402

FASTEST = _native.instruction_sets()[0]
LENGTHS = (1, 5, 17, 290, 130)
"""Windows of long sequences are taken in parts of 128 queries."""

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 300,
    "pad_token_id": 1,
}
WINDOWED = {"local_attention": 20, "global_attn_every_n_layers": 2}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
DISTANCES = DEBERTA | {"share_att_key": False, "norm_rel_ebd": "none", "max_relative_positions": 9}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ALBERT": ("Albert", {"embedding_size": 20}),
    "MPNet": ("MPNet", {}),
    "MegatronBERT": ("MegatronBert", {}),
    "XLM-R-XL": ("XLMRobertaXL", {}),
    "RoBERTa-PreLayerNorm": ("RobertaPreLayerNorm", {}),
    "ModernBERT": ("ModernBert", WINDOWED),
    "ModernBERT with biases": (
        "ModernBert",
        WINDOWED | {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "hidden_size": 128},
    ),
    "EuroBERT": ("EuroBert", {"num_key_value_heads": 2, "rope_theta": 300.0}),
    "NomicBERT": ("NomicBert", {}),
    "DeBERTa-v3": ("DebertaV2", DEBERTA | {"position_buckets": 256, "max_relative_positions": 300}),
    "DeBERTa with few buckets": ("DebertaV2", DEBERTA | {"position_buckets": 8, "num_attention_heads": 2}),
    "DeBERTa with buckets that leave vectors out": (
        "DebertaV2",
        DEBERTA | {"position_buckets": 256, "max_relative_positions": 140, "num_attention_heads": 16},
    ),
    "DeBERTa with distances": ("DebertaV2", DISTANCES | {"position_biased_input": True, "embedding_size": 20}),
    "DeBERTa with keys of distances": (
        "DebertaV2",
        DISTANCES | {"pos_att_type": ["c2p"], "max_relative_positions": 200, "hidden_size": 64},
    ),
    "DeBERTa with queries of distances": (
        "DebertaV2",
        DISTANCES | {"pos_att_type": ["p2c"], "share_att_key": True, "hidden_size": 128},
    ),
    "GTE": ("Gte", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 1.1}}),
}


@dataclass(frozen=True)
class Case:
    """A random checkpoint, a packed batch, and what transformers makes of it."""

    files: ModelFiles
    batch: PackedBatch
    reference: Reference
    sequences: list[Any]

    def backend(self, **options: Any) -> NativeBackend:
        defaults = {"precision": "float32", "threads": 1, "instruction_set": FASTEST}
        return NativeBackend(self.files.spec, self.files.weights, **(defaults | options))

    def run(self, backend: NativeBackend, *captures: Capture, top_rows_only: bool = False) -> dict[Capture, Any]:
        program = Program(
            captures=captures, stop=max(capture.layers[-1] for capture in captures), top_rows_only=top_rows_only
        )
        return backend.run(program, self.batch, {"tokens": segments_of(self.batch, "tokens")})

    @property
    def last(self) -> int:
        return self.files.spec.num_hidden_layers


@pytest.fixture(scope="module", params=FAMILIES, ids=FAMILIES)
def case(request, tmp_path_factory):
    prefix, fields = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(prefix)
    save_model(folder, random_model(prefix, SIZES | fields))
    files = open_model(locate(folder))
    sequences = random_sequences(LENGTHS, SIZES["vocab_size"])
    batch = pack(sequences, position_ids=files.spec.positions.position_ids)
    final_norm = "final_norm" if prefix == "ModernBert" else None
    return Case(files, batch, Reference.load(folder, final_norm=final_norm), sequences)


@pytest.fixture(scope="module")
def expected(case):
    return case.reference.outputs(case.sequences)


@pytest.mark.parametrize(
    ("instruction_set", "threads"), [(FASTEST, 3), *((name, 1) for name in _native.instruction_sets())]
)
def test_states_pooler_and_single_rows(instruction_set, threads, case, expected, error_over_rms, report):
    backend = case.backend(instruction_set=instruction_set, threads=threads)
    states = [Capture(layers=(i,)) for i in range(case.last + 1)]
    found = case.run(backend, *states)
    errors = [error_over_rms(found[state], wanted) for state, wanted in zip(states, expected.states, strict=True)]
    if expected.pooled is not None:
        head = Capture(layers=(case.last,), segments="tokens", reduce="first", pooler=True)
        errors.append(error_over_rms(case.run(backend, head)[head], expected.pooled))
    report(f"{instruction_set}: largest |error| / RMS", max(errors))
    assert max(errors) <= 2e-5

    for edge, rows in (("first", case.batch.cu_seqlens[:-1]), ("last", case.batch.cu_seqlens[1:] - 1)):
        for layer in range(1, case.last + 1):
            few = Capture(layers=(layer,), segments="tokens", reduce=edge)
            alone = case.run(backend, few, top_rows_only=True)[few]
            assert alone.tobytes() == found[states[layer]][rows].tobytes()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_the_narrow_precisions(precision, case, expected, smallest_cosine, report):
    if precision not in _native.precisions(FASTEST):
        pytest.skip(f"no {precision} here")
    state = Capture(layers=(case.last,))
    cosine = smallest_cosine(case.run(case.backend(precision=precision), state)[state], expected.states[-1])
    report(f"{precision}: 1 - smallest cosine", 1 - cosine)
    assert cosine >= {"bfloat16": 0.998, "int8": 0.98}[precision]


@pytest.mark.parametrize("threads", [1, 3])
def test_attention_maps(threads, case):
    """They are transformers' own, and that they are asked for changes nothing."""
    backend = case.backend(threads=threads)
    maps = [Capture(layers=(i,), attention="heads") for i in range(1, case.last + 1)]
    mean = Capture(layers=(2,), attention="mean")
    state = Capture(layers=(case.last,))
    found = case.run(backend, *maps, mean, state)
    assert found[state].tobytes() == case.run(backend, state)[state].tobytes()
    heads, ends = case.files.spec.num_attention_heads, np.cumsum([length**2 for length in LENGTHS])
    for end, length, of_layers in zip(ends, LENGTHS, case.reference.attentions(case.sequences), strict=True):
        size = length**2
        for layer, wanted in enumerate(of_layers):
            own = found[maps[layer]][heads * (end - size) : heads * end].reshape(wanted.shape)
            np.testing.assert_allclose(own, wanted, rtol=0, atol=2e-6)
        np.testing.assert_allclose(found[mean][end - size : end], of_layers[1].mean(axis=0).ravel(), rtol=0, atol=2e-6)


def test_the_state_before_the_final_norm(case, expected, error_over_rms):
    backend = case.backend()
    raw = Capture(layers=(case.last,), unnormed=True)
    if not case.files.spec.final_norm:
        with pytest.raises(ValueError, match="before the final norm"):
            case.run(backend, raw)
        return
    normed = Capture(layers=(case.last,))
    mean = Capture(layers=(0, case.last), weights=(0.5, 0.5), segments="tokens", reduce="sum", unnormed=True)
    found = case.run(backend, raw, normed, mean)
    assert found[normed].tobytes() == case.run(backend, normed)[normed].tobytes()
    assert found[raw].tobytes() == case.run(backend, raw)[raw].tobytes()
    assert np.abs(found[raw] - found[normed]).max() > 0.1
    first = Capture(layers=(0,))
    both = 0.5 * (case.run(backend, first)[first].astype(np.float64) + found[raw])
    assert error_over_rms(found[mean], np.add.reduceat(both, case.batch.cu_seqlens[:-1])) <= 5e-6
    if expected.unnormed is not None:
        assert error_over_rms(found[raw], expected.unnormed) <= 2e-5


def test_a_sequence_longer_than_the_biases_is_refused(case):
    if not isinstance(case.files.spec.relative, RelativeBias):
        pytest.skip("no biases by distance")
    backend = case.backend()
    embeddings = Program(captures=(Capture(layers=(0,)),), stop=0)
    backend.run(embeddings, case.batch, {})
    one = replace(case.batch, cu_seqlens=np.array([0, case.batch.num_tokens], np.int32))
    with pytest.raises(ValueError, match="longer than the bias"):
        backend.run(embeddings, one, {})


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sequences_longer_than_the_distances_that_there_are_vectors_of(threads, case, error_over_rms):
    """Distances are numbered as far as a sequence reaches, when it comes; the bits of shorter ones stay."""
    if not isinstance(case.files.spec.relative, Disentangled):
        pytest.skip("no vectors of distances")
    backend, state = case.backend(threads=threads), Capture(layers=(case.last,))
    before = case.run(backend, state)[state]
    if case.files.spec.any_length:
        long = random_sequences([1100], SIZES["vocab_size"])
        batch = pack(long, position_ids=case.files.spec.positions.position_ids)
        found = backend.run(Program(captures=(state,), stop=case.last), batch, {})[state]
        assert error_over_rms(found, case.reference.outputs(long).states[-1]) <= 2e-5
    assert case.run(backend, state)[state].tobytes() == before.tobytes()
