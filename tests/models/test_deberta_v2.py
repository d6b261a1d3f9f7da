"""What is peculiar to DeBERTa v2 and v3, fact by fact; `tests/conformance` has the arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.errors import ConfigError, UnsupportedModelError, WeightsError
from layertap.models.config import ConfigReader
from layertap.models.positions import Disentangled, PlainPositions, PositionTable
from layertap.models.registry import architecture, architecture_of
from layertap.models.spec import Convolution, EncoderSpec
from tests.tiny_models import write_keys

V3_BASE = {  # as on the hub: no architectures, no token types, no absolute positions
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
V2_XLARGE = V3_BASE | {
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "pooler_hidden_size": 1536,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "attention_head_size": 64,
}
SMALL = V3_BASE | {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 34,
    "position_buckets": 8,
}


def spec_of(base: dict[str, object] = V3_BASE, **fields: object) -> EncoderSpec:
    return architecture("deberta-v2").spec(ConfigReader(base | fields))


def checkpoint(folder: Path, *, prefix: str = "", old_norms: bool = False, **fields: object) -> Path:
    """A checkpoint under the names of transformers, with random weights."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (20, 8),
        "encoder.rel_embeddings.weight": (16, 8),
    }
    norms, denses = ["embeddings.LayerNorm", "encoder.LayerNorm"], {}
    for i in range(2):
        at = f"encoder.layer.{i}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        denses |= {f"{at}.attention.self.{name}_proj": (8, 8) for name in ("query", "key", "value")}
        denses |= {f"{at}.attention.output.dense": (8, 8)}
        denses |= {f"{at}.intermediate.dense": (12, 8), f"{at}.output.dense": (8, 12)}
    for name in norms:
        shapes |= {f"{name}.{end}": (8,) for end in (("gamma", "beta") if old_norms else ("weight", "bias"))}
    for name, shape in denses.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return write_keys(folder, SMALL | fields, {prefix + name: shape for name, shape in shapes.items()})


def opened(folder: Path) -> ModelFiles:
    return open_model(locate(folder))


def add(folder: Path, **more: np.ndarray) -> None:
    named = {name.replace("__", "."): array for name, array in more.items()}
    save_file(load_file(folder / "model.safetensors") | named, folder / "model.safetensors")


def test_v3_base():
    assert architecture_of(ConfigReader(V3_BASE)).name == "deberta-v2"
    spec = spec_of()
    assert spec.relative == Disentangled(
        max_distance=512,
        buckets=256,
        content_to_position=True,
        position_to_content=True,
        shared_projections=True,
        norm=True,
    )
    assert spec.parameters()["encoder.rel_embeddings.weight"] == (512, 768)
    assert spec.score_scale == (64 * 3) ** -0.5
    assert (spec.convolution, spec.pooler, spec.type_vocab_size, spec.layer_norm_eps) == (None, False, 0, 1e-7)
    names = spec.parameters()
    assert not any("pos_" in name or "position_embeddings" in name or "token_type" in name for name in names)


def test_v2_xlarge():
    spec = spec_of(V2_XLARGE)
    assert spec.convolution == Convolution(kernel_size=3, activation="gelu")
    assert spec.parameters()["encoder.conv.conv.weight"] == (1536, 1536, 3)
    assert spec.num_states == 25


def test_positions_are_a_table_only_where_they_bias_the_input():
    assert spec_of().positions == PlainPositions(max_length=512)
    assert spec_of(position_biased_input=True).positions == PositionTable(rows=512)
    del (fields := dict(V3_BASE))["position_biased_input"]
    assert spec_of(fields).positions == PositionTable(rows=512)


@pytest.mark.parametrize(
    ("written", "terms"),
    [
        ("c2p|p2c", (True, True)),
        ("P2C | C2P", (True, True)),
        (["c2p"], (True, False)),
        ("p2c", (False, True)),
    ],
)
def test_terms_of_a_score(written, terms):
    relative = spec_of(pos_att_type=written).relative
    assert (relative.content_to_position, relative.position_to_content) == terms
    assert relative.terms == 1 + sum(terms)


def test_projections_of_distances():
    own = spec_of(share_att_key=False)
    assert own.parameters()["encoder.layer.3.attention.self.pos_key_proj.bias"] == (768,)
    assert own.parameters()["encoder.layer.3.attention.self.pos_query_proj.weight"] == (768, 768)
    one = spec_of(share_att_key=False, pos_att_type="c2p").parameters()
    assert "encoder.layer.3.attention.self.pos_key_proj.weight" in one
    assert "encoder.layer.3.attention.self.pos_query_proj.weight" not in one


@pytest.mark.parametrize(
    ("fields", "span"),
    [
        ({"position_buckets": -1}, 512),
        ({"position_buckets": -1, "max_relative_positions": 100}, 100),
        ({"position_buckets": 64, "max_relative_positions": 100}, 64),
        ({"position_buckets": 0, "max_position_embeddings": 1024}, 1024),
    ],
)
def test_how_many_vectors_there_are(fields, span):
    spec = spec_of(**fields)
    assert spec.relative.span == span
    assert spec.parameters()["encoder.rel_embeddings.weight"] == (2 * span, 768)


def test_tables_of_another_width_are_projected_and_then_normed():
    spec = spec_of(embedding_size=128)
    assert spec.embedding_projection
    assert spec.projection_first
    shapes = spec.parameters()
    assert shapes["embeddings.word_embeddings.weight"] == (128100, 128)
    assert shapes["embeddings.projection.weight"] == (768, 128)
    assert "embeddings.projection.bias" not in shapes
    assert shapes["embeddings.LayerNorm.weight"] == (768,)
    assert spec_of(embedding_size=768) == spec_of()


def test_without_relative_attention_it_is_bert():
    spec = spec_of(relative_attention=False, pos_att_type=None, norm_rel_ebd="none")
    assert spec.relative is None
    assert spec.score_scale == 64**-0.5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"relative_attention": False}, "pos_att_type is 'p2c|c2p': it says how relative_attention scores"),
        ({"relative_attention": False, "pos_att_type": None}, "norm_rel_ebd is 'layer_norm': it norms what"),
        ({"attention_head_size": 32}, "attention_head_size is 32: heads divide the hidden size evenly"),
        ({"conv_kernel_size": 3, "conv_groups": 2}, "conv_groups is 2: only convolutions over all columns"),
        ({"is_decoder": True}, "is_decoder is True: a decoder attends to the left only"),
        (
            {"quantization_config": {"bits": 4}},
            "quantization_config is {'bits': 4}: quantised checkpoints are not read",
        ),
    ],
)
def test_what_is_not_computed_is_refused(fields, says):
    with pytest.raises(UnsupportedModelError, match=f"^config.json: {re.escape(says)}"):
        spec_of(**fields)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("pos_att_type", "c2p|p2p", "some of c2p, p2c"),
        ("pos_att_type", [], "some of c2p, p2c, as relative_attention is on"),
        ("pos_att_type", 3, "some of c2p, p2c"),
        ("norm_rel_ebd", "batch_norm", "one of none, layer_norm"),
        ("position_buckets", 1, "at least 2"),
        ("position_buckets", 1022, "at least 2, and half of it below the greatest distance (511), or none"),
        ("position_buckets", None, "a whole number"),
        ("share_att_key", "yes", "true or false"),
        ("conv_kernel_size", 4, "an odd number, or 0"),
        ("num_attention_heads", 7, "a divisor of hidden_size (768)"),
        ("pad_token_id", 128100, "an id below vocab_size (128100)"),
    ],
)
def test_impossible_values(field, value, expected):
    with pytest.raises(ConfigError, match=f"^config.json: {field}: expected {re.escape(expected)}"):
        spec_of(**{field: value})


def test_an_activation_of_the_convolution_that_is_not_known():
    with pytest.raises(ConfigError, match=r"conv_act: expected one of gelu, .*, tanh, found 'mish'"):
        spec_of(V2_XLARGE, conv_act="mish")
    assert spec_of(V3_BASE, conv_kernel_size=5).convolution == Convolution(kernel_size=5, activation="tanh")


def test_v1_is_refused_by_name():
    for config in ({"model_type": "deberta"}, {"architectures": ["DebertaForMaskedLM"]}):
        with pytest.raises(UnsupportedModelError, match="DeBERTa v1 has relative positions in attention"):
            architecture_of(ConfigReader(config))
    assert architecture_of(ConfigReader({"architectures": ["DebertaV2ForMaskedLM"]})).name == "deberta-v2"


@pytest.mark.parametrize("prefix", ["", "deberta."])
@pytest.mark.parametrize("old_norms", [False, True])
def test_stored_names(tmp_path, prefix, old_norms):
    plain = opened(checkpoint(tmp_path / "plain"))
    files = opened(checkpoint(tmp_path / "form", prefix=prefix, old_norms=old_norms))
    assert (files.unused_keys, files.ignored_keys, files.missing, files.pooler) == ((), (), (), "absent")
    assert files.tensors["encoder.layer.1.attention.self.query.weight"].key == (
        f"{prefix}encoder.layer.1.attention.self.query_proj.weight"
    )
    assert files.tensors["encoder.LayerNorm.bias"].key == f"{prefix}encoder.LayerNorm." + (
        "beta" if old_norms else "bias"
    )
    found, expected = (one.weights(one.tensors) for one in (files, plain))
    for name, view in found.items():
        np.testing.assert_array_equal(view.to_float32(), expected[name].to_float32())


def test_what_v3_stores_beside_the_encoder_is_set_aside(tmp_path):
    folder = checkpoint(tmp_path / "m", prefix="deberta.")
    more = {
        "deberta__embeddings__position_embeddings__weight": np.ones((34, 8), np.float32),
        "deberta__embeddings__position_ids": np.zeros((1, 34), np.int64),
        "lm_predictions__lm_head__bias": np.ones(20, np.float32),
        "mask_predictions__dense__weight": np.ones((8, 8), np.float32),
        "pooler__dense__weight": np.ones((8, 8), np.float32),
    }
    add(folder, **more)
    files = opened(folder)
    assert files.ignored_keys == tuple(sorted(name.replace("__", ".") for name in more))
    assert (files.unused_keys, files.pooler) == ((), "absent")


def test_absolute_positions_are_needed_where_the_config_says_so(tmp_path):
    folder = checkpoint(tmp_path / "m", position_biased_input=True)
    assert opened(folder).missing == ("embeddings.position_embeddings.weight",)
    add(folder, embeddings__position_embeddings__weight=np.ones((34, 8), np.float32))
    files = opened(folder)
    assert (files.missing, files.ignored_keys) == ((), ())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("encoder.conv.conv.weight", (8, 8, 3)),
        ("encoder.layer.0.attention.self.pos_key_proj.weight", (8, 8)),
        ("embeddings.token_type_embeddings.weight", (2, 8)),
    ],
)
def test_weights_that_the_config_does_not_speak_of_are_refused(tmp_path, name, shape):
    folder = checkpoint(tmp_path / "m")
    add(folder, **{name.replace(".", "__"): np.ones(shape, np.float32)})
    with pytest.raises(WeightsError, match=f"{re.escape(name)}: expected only weights of deberta-v2"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("encoder.rel_embeddings.weight", None, "expected a weight of shape [16, 8], found none"),
        ("encoder.rel_embeddings.weight", np.ones((12, 8), np.float32), "expected shape [16, 8]"),
        ("encoder.LayerNorm.weight", np.full(8, np.inf, np.float32), "finite"),
    ],
)
def test_broken_checkpoints(tmp_path, name, array, says):
    folder = checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights | ({} if array is None else {name: array}), folder / "model.safetensors")
    files = opened(folder)
    with pytest.raises(WeightsError, match=re.escape(says)):
        files.weights(files.spec.parameters())
