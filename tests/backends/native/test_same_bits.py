"""The promise: the same text gives the same bits, whatever is in the batch, whatever else is asked, on any threads."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

from layertap.backends.native import _native
from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import locate
from layertap.engine.segments import segments_of
from layertap.features.program import Capture, Program
from tests.tiny_models import random_model, save_model

COMPOSITIONS = {"few": 25, "some": 100, "many": 2000}
"""Random batches for each of `CASES`; `many` is over 10,000 in all where AVX-512 is."""

LENGTHS = (1, 2, 3, 7, 15, 16, 17, 31, 33, 64)
LAYERS = 3
MEAN, FIRST, LAST, TOP = (
    Capture(layers=(LAYERS,), segments="tokens", reduce=reduce) for reduce in ("sum", "first", "last", "max")
)
POOLER = Capture(layers=(LAYERS,), segments="tokens", reduce="first", pooler=True)
MIDDLE = Capture(layers=(2,), segments="tokens", reduce="sum")
FOLDED = Capture(layers=(1, 3), weights=(0.25, 2.0), segments="tokens", reduce="sum")
STATES = Capture(layers=(LAYERS,))
RAW = Capture(layers=(LAYERS,), segments="tokens", reduce="sum", unnormed=True)
BOTH = Capture(layers=(0, LAYERS), fold="max", segments="tokens", reduce="last", unnormed=True)


def precisions_of(instruction_set: str) -> list[str]:
    more = {
        "amx": ["float32-high", "bfloat16", "int8"],
        "amx_emulated": ["float32-high", "bfloat16", "int8"],
        "avx512_bf16": ["bfloat16", "int8"],
        "avx512_vnni": ["int8"],
    }
    return ["float32", *more.get(instruction_set, [])]


FASTEST = _native.instruction_sets()[0]
CASES = [("bert", name, precision) for name in _native.instruction_sets() for precision in precisions_of(name)] + [
    (family, FASTEST, precision)
    for family in ("modernbert", "eurobert", "deberta")
    for precision in precisions_of(FASTEST)
]


@pytest.fixture(scope="module")
def make_family(make_model, wrap_model, tmp_path_factory):
    """BERT; windows, rotary positions, gates, a final norm; shared keys, norms by the root mean square; distances."""
    sizes = {"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 136}
    newer = sizes | {"vocab_size": 60, "num_hidden_layers": LAYERS, "pad_token_id": 1}
    distances = {
        "relative_attention": True,
        "position_buckets": 64,
        "max_relative_positions": 200,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    windows = {"local_attention": 18, "global_attn_every_n_layers": 2}

    def make(family):
        if family == "bert":
            return make_model(max_position_embeddings=70, **sizes)
        pytest.importorskip("transformers")
        name, fields = {
            "modernbert": ("ModernBert", windows),
            "deberta": ("DebertaV2", distances),
            "eurobert": ("EuroBert", {"num_key_value_heads": 1}),
        }[family]
        reference = random_model(name, newer | fields)
        folder = save_model(tmp_path_factory.mktemp(family), reference)
        model, files = wrap_model(reference), open_model(locate(folder))
        model.views = files.weights(files.spec.parameters())
        return model

    return make


def results_of(backend, model, sequences, captures, *, few_rows=False):
    """One dict a sequence: capture -> its bytes; of every row those of the sequence."""
    batch = model.pack(sequences)
    stop = max(capture.layers[-1] for capture in captures)
    program = Program(captures=tuple(captures), stop=stop, top_rows_only=few_rows)
    found = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    ends = batch.cu_seqlens

    def of(capture, i):
        rows = found[capture]
        return (rows[ends[i] : ends[i + 1]] if capture.segments is None else rows[i]).tobytes()

    return [{capture: of(capture, i) for capture in captures} for i in range(len(sequences))]


@pytest.mark.parametrize(
    "how_many", ["few", pytest.param("some", marks=pytest.mark.slow), pytest.param("many", marks=pytest.mark.real_size)]
)
@pytest.mark.parametrize(("family", "instruction_set", "precision"), CASES)
def test_same_bits_in_every_batch(family, instruction_set, precision, how_many, make_family, report):
    model = make_family(family)
    backends = [
        model.native(instruction_set=instruction_set, precision=precision, threads=threads) for threads in (1, 2, 5)
    ]
    random = np.random.default_rng(0)
    lengths = LENGTHS if family == "bert" else (*LENGTHS, 150, 290)  # windows are taken in parts of 128 queries
    texts = model.random_sequences(lengths, seed=1)
    every = [MEAN, FIRST, LAST, TOP, MIDDLE, FOLDED, STATES]
    every += [POOLER] if model.spec.pooler else []
    every += [RAW, BOTH] if model.spec.final_norm else []
    alone = [results_of(backends[0], model, [text], every)[0] for text in texts]
    # tiles in software are slow
    compositions = COMPOSITIONS[how_many] // (10 if instruction_set == "amx_emulated" else 1)
    for _ in range(compositions):
        order = random.choice(len(texts), random.integers(1, 13))
        others = model.random_sequences(
            random.integers(1, 40, random.integers(0, 5)), seed=int(random.integers(1 << 30))
        )
        sequences = [texts[i] for i in order] + others
        shuffled = random.permutation(len(sequences))
        few_rows = bool(random.random() < 0.3)
        picked = [every[i] for i in random.permutation(len(every))[: random.integers(1, 5)]]
        captures = [capture for capture in picked if not (few_rows and capture is STATES)] or [FIRST]
        backend = backends[random.integers(len(backends))]
        found = results_of(backend, model, [sequences[i] for i in shuffled], captures, few_rows=few_rows)
        for place, i in enumerate(shuffled):
            if i < len(order):
                for capture in captures:
                    assert found[place][capture] == alone[order[i]][capture], (
                        capture,
                        lengths[order[i]],
                        backend.threads,
                    )
    report(f"{family} {instruction_set} {precision}: random batches with the same bits", compositions)


VECTOR_SETS = [name for name in _native.instruction_sets() if not name.startswith("amx")]


@pytest.mark.parametrize("family", ["bert", "modernbert", "eurobert", "deberta"])
def test_float32_has_the_same_bits_on_all_sets_of_vectors(family, make_family):
    model = make_family(family)
    texts = model.random_sequences((1, 15, 16, 17, 33, 64, *(() if family == "bert" else (129, 290))), seed=2)
    every = [MEAN, TOP, FOLDED, STATES, *([POOLER] if model.spec.pooler else [])]
    expected = results_of(model.native(instruction_set="avx2", precision="float32"), model, texts, every)
    for instruction_set in VECTOR_SETS[:-1]:
        backend = model.native(instruction_set=instruction_set, precision="float32")
        assert backend.instruction_set == "x86"
        assert results_of(backend, model, texts, every) == expected, instruction_set


@pytest.mark.parametrize("attention", ["heads", "mean"])
def test_attention_maps_have_the_same_bits_on_all_sets_of_vectors(attention, make_family):
    model = make_family("bert")
    capture = Capture(layers=(2,), attention=attention)
    batch = model.pack(model.random_sequences((1, 15, 17, 33, 64), seed=3))
    program = Program(captures=(capture,), stop=2)
    maps = [
        model.native(instruction_set=name, precision="float32").run(program, batch, {})[capture] for name in VECTOR_SETS
    ]
    for others in maps[:-1]:
        np.testing.assert_array_equal(others.view(np.int32), maps[-1].view(np.int32))
