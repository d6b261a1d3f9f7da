"""ModernBERT and EuroBERT beyond the conformance suite: spellings, windows, long texts, dropout, damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402 - comes with transformers

from layertap.backends.torch import attention  # noqa: E402 - needs torch
from layertap.backends.torch.attention import Layout  # noqa: E402
from layertap.backends.torch.encoder import Encoder, PackedTensors  # noqa: E402
from layertap.errors import WeightsError  # noqa: E402
from layertap.models.config import ConfigReader  # noqa: E402
from layertap.models.registry import architecture  # noqa: E402
from layertap.testing.candidate import Candidate  # noqa: E402
from layertap.testing.families import random_sequences  # noqa: E402
from layertap.verify.measure import Difference, float32_bound  # noqa: E402
from layertap.verify.reference import Reference  # noqa: E402
from tests.tiny_models import random_model, save_model  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 3,
}
LAYERS = SIZES["num_hidden_layers"]


def saved(folder: Path, name: str = "ModernBert", **fields: Any) -> Any:
    """A random model of transformers, written to a folder."""
    model = random_model(name, SIZES | fields)
    save_model(folder, model)
    return model


def change_config(folder: Path, without: tuple[str, ...] = (), **fields: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in config.items() if name not in without}
    path.write_text(json.dumps({**kept, **fields}), encoding="utf-8")


def assert_equal(folder: Path, lengths: tuple[int, ...]) -> None:
    """All states equal transformers' on the folder as it is now."""
    sequences = random_sequences(lengths, SIZES["vocab_size"])
    found = Candidate.open(folder).outputs(sequences).states
    expected = Reference.load(folder).outputs(sequences).states
    errors = [Difference.of(*pair).error_over_rms for pair in zip(found, expected, strict=True)]
    assert max(errors) <= float32_bound(LAYERS), errors


def test_a_config_of_transformers_4(tmp_path):
    saved(tmp_path)
    change_config(
        tmp_path,
        without=("layer_types", "rope_parameters", "dtype"),
        transformers_version="4.48.0",
        torch_dtype="float32",
        global_attn_every_n_layers=2,
        global_rope_theta=500.0,
        local_rope_theta=20.0,
        local_attention=10,
        position_embedding_type="absolute",
        reference_compile=None,
    )
    assert Candidate.open(tmp_path).files.spec.windows == (None, 5, None, 5)
    assert_equal(tmp_path, (30, 4, 1))


def test_layer_types_in_any_order(tmp_path):
    saved(tmp_path)
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    change_config(tmp_path, layer_types=kinds, local_attention=7)
    assert_equal(tmp_path, (30, 4, 1))


def test_a_eurobert_config_of_its_own_code(tmp_path):
    saved(tmp_path, "EuroBert", num_key_value_heads=1)
    change_config(tmp_path, without=("rope_parameters",), rope_theta=250_000, rope_scaling=None, head_dim=8)
    assert_equal(tmp_path, (30, 4, 1))
    # transformers would ask for the code; the twin needs none
    change_config(tmp_path, auto_map={"AutoModel": "modeling_eurobert.EuroBertModel"})
    assert Candidate.open(tmp_path).files.spec.rotary_thetas == (250_000.0,) * LAYERS


def encoder_of(**fields: Any) -> Encoder:
    """A random encoder of a ModernBERT config."""
    spec = architecture("modernbert").spec(ConfigReader({**SIZES, **fields}))
    encoder = Encoder(spec, pooler=False)
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, 0.5, 0.5)
    return encoder.eval()


def packed(lengths: tuple[int, ...], inputs_embeds: Any = None) -> PackedTensors:
    ids = np.concatenate(random_sequences(lengths, SIZES["vocab_size"]))
    return PackedTensors(
        input_ids=torch.as_tensor(ids, dtype=torch.long),
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        token_type_ids=None,
        layout=Layout.of(lengths),
        inputs_embeds=inputs_embeds,
    )


def test_the_usual_window_reaches_64_tokens_to_each_side_and_no_further():
    encoder = encoder_of(num_hidden_layers=1, layer_types=["sliding_attention"])
    tokens = torch.randn(200, SIZES["hidden_size"], requires_grad=True)
    *_, (_, last) = encoder.states(packed((200,), tokens))
    last[100].sum().backward()
    reached = tokens.grad.abs().amax(dim=1).nonzero().squeeze(1)
    assert reached.tolist() == list(range(100 - 64, 100 + 64 + 1))


LONG, SHORT = 8000, (9, 1, 200)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("long")
    return folder, saved(folder, hidden_size=16, num_attention_heads=1, intermediate_size=24)


@pytest.mark.slow
def test_a_text_of_8000_tokens_beside_short_ones(long_model):
    folder, model = long_model
    sequences = random_sequences((*SHORT, LONG), SIZES["vocab_size"])
    found = Candidate.open(folder).outputs(sequences).states
    expected = Reference(model).outputs(sequences).states
    for i, (state, wanted) in enumerate(zip(found, expected, strict=True)):
        assert np.isfinite(state).all()
        assert Difference.of(state, wanted).error_over_rms <= float32_bound(LAYERS), i


def test_in_bfloat16_a_long_text_leaves_no_row_undefined(long_model):
    sequences = random_sequences((*SHORT, LONG), SIZES["vocab_size"])
    candidate = Candidate.open(long_model[0])
    exact, half = (candidate.outputs(sequences, precision=precision) for precision in ("float32", "bfloat16"))
    assert all(np.isfinite(state).all() for state in half.states)
    assert Difference.of(half.states[-1], exact.states[-1]).cosine > 0.99


@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "inference"])
def test_scores_of_a_window_do_not_grow_with_the_square_of_a_text(monkeypatch, grad):
    """Every product of a sliding layer is of a few queries and the keys near them."""
    encoder = encoder_of(num_hidden_layers=2, layer_types=["sliding_attention"] * 2)
    sizes = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Any, key: Any, *rest: Any, **keywords: Any) -> Any:
        sizes.append(query.shape[2] * key.shape[2])
        return attend(query, key, *rest, **keywords)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", counted)
    with torch.set_grad_enabled(grad):
        *_, (_, last) = encoder.states(packed((*SHORT, LONG)))
    assert last.isfinite().all()
    together = attention.QUERIES_TOGETHER
    assert max(sizes) <= together * (together + 2 * 64)
    assert sum(sizes) <= 2 * (LONG + sum(SHORT) + together) * (together + 2 * 64)
    if grad:
        last.square().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


RATES = {
    "ModernBert": ("embedding_dropout", "attention_dropout", "mlp_dropout"),
    "EuroBert": ("attention_dropout",),
}


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name, rates in RATES.items() for rate in rates])
def test_dropouts_stand_where_transformers_has_them(tmp_path, name, rate):
    """With a rate of 1 what is dropped is zero, in either library, so that training is comparable."""
    model = saved(tmp_path, name, attention_bias=True, mlp_bias=True, **{rate: 1.0}).train()
    encoder = Candidate.open(tmp_path).encoder().train()
    (ids,) = random_sequences((20,), SIZES["vocab_size"])
    expected = model(torch.as_tensor(ids, dtype=torch.long)[None], output_hidden_states=True).hidden_states
    found = [state for _, state in encoder.states(packed((20,)))]
    calm = [state for _, state in encoder.eval().states(packed((20,)))]
    for state, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(state, wanted[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[-1], calm[-1], atol=1e-2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("layers.1.attn_norm.weight"), "encoder.layer.1.attention.LayerNorm.weight: expected a weight"),
        (lambda w: w.update({"layers.0.attn_norm.weight": torch.ones(32)}), "layers.0.attn_norm.weight: expected only"),
        (
            lambda w: w.update({"layers.0.attn.q_norm.weight": torch.ones(8)}),
            "layers.0.attn.q_norm.weight: expected only",
        ),
        (lambda w: w.update({"layers.0.attn.Wqkv.bias": torch.ones(96)}), "layers.0.attn.Wqkv.bias: expected only"),
        (lambda w: w.update({"layers.0.mlp.Wi.weight": torch.ones(95, 32)}), r"expected shape \[96, 32\]"),
        (
            lambda w: w.pop("layers.2.attn.Wqkv.weight"),
            "encoder.layer.2.attention.self.query.weight: expected a weight",
        ),
        (lambda w: w.pop("final_norm.weight"), "encoder.final_norm.weight: expected a weight"),
        (lambda w: w.pop("embeddings.tok_embeddings.weight"), "word_embeddings.weight: expected for modernbert"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, change, says):
    saved(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=says):
        Candidate.open(tmp_path).outputs(random_sequences((5,), SIZES["vocab_size"]))
