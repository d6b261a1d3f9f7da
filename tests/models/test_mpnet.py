"""What is peculiar to MPNet, fact by fact; `tests/conformance` has the arithmetic."""

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
from layertap.models.positions import PositionTable, RelativeBias
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec
from tests.tiny_models import write_keys

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 34,
}


def spec_of(**fields: object) -> EncoderSpec:
    return architecture("mpnet").spec(ConfigReader(SIZES | fields))


def checkpoint(folder: Path, *, prefix: str = "", old_norms: bool = False, **fields: object) -> Path:
    """A checkpoint as transformers stores it, with random weights."""
    tables = {"embeddings.word_embeddings.weight": (20, 8), "embeddings.position_embeddings.weight": (34, 8)}
    shapes = {**tables, "encoder.relative_attention_bias.weight": (32, 2)}
    norms, denses = ["embeddings.LayerNorm"], {}
    for i in range(2):
        at = f"encoder.layer.{i}"
        norms += [f"{at}.attention.LayerNorm", f"{at}.output.LayerNorm"]
        denses |= {f"{at}.attention.attn.{name}": (8, 8) for name in "qkvo"}
        denses |= {f"{at}.intermediate.dense": (12, 8), f"{at}.output.dense": (8, 12)}
    for name in norms:
        shapes |= {f"{name}.{end}": (8,) for end in (("gamma", "beta") if old_norms else ("weight", "bias"))}
    for name, shape in denses.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    stored = {prefix + name: shape for name, shape in shapes.items()}
    return write_keys(folder, SIZES | {"model_type": "mpnet"} | fields, stored)


def opened(folder: Path) -> ModelFiles:
    return open_model(locate(folder))


def test_the_padding_id_is_1_whatever_the_config_says():
    plain = spec_of()
    assert plain.positions == PositionTable(rows=34, padding_id=1)
    assert plain.pad_token_id == 1
    for pad in (0, 5, None, 10**9):
        assert spec_of(pad_token_id=pad) == plain


def test_positions_are_counted_from_the_ids():
    ids = np.array([7, 1, 8, 9], dtype=np.int32)
    assert spec_of().positions.position_ids(ids).tolist() == [2, 1, 3, 4]
    assert spec_of(max_position_embeddings=514).positions.max_length == 512


def test_there_are_no_token_types_whatever_the_config_says():
    for types in (0, 2):
        assert spec_of(type_vocab_size=types) == spec_of()
    assert not any("token_type" in name for name in spec_of().parameters())


def test_one_table_of_biases_for_all_layers():
    spec = spec_of()
    assert spec.relative == RelativeBias(buckets=32, max_distance=128)
    assert spec.parameters()["encoder.relative_attention_bias.weight"] == (32, 2)
    assert spec.pooler


@pytest.mark.parametrize("buckets", [16, 64, None])
def test_other_numbers_of_buckets_are_refused(buckets):
    with pytest.raises(UnsupportedModelError, match=r"config.json: relative_attention_num_buckets is .* in 32 buckets"):
        spec_of(relative_attention_num_buckets=buckets)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("max_position_embeddings", 2, "a whole number from 3"),
        ("vocab_size", 1, "a whole number from 2"),
        ("hidden_act", "none", "one of gelu"),
        ("num_attention_heads", 3, "a divisor of hidden_size"),
    ],
)
def test_impossible_values(field, value, says):
    with pytest.raises(ConfigError, match=f"config.json: {field}: expected {says}"):
        spec_of(**{field: value})


@pytest.mark.parametrize("prefix", ["", "mpnet."])
@pytest.mark.parametrize("old_norms", [False, True])
def test_stored_names(tmp_path, prefix, old_norms):
    plain = opened(checkpoint(tmp_path / "plain"))
    files = opened(checkpoint(tmp_path / "form", prefix=prefix, old_norms=old_norms))
    assert (files.unused_keys, files.missing, files.pooler) == ((), (), "absent")
    stored = files.tensors["encoder.layer.1.attention.output.dense.weight"].key
    assert stored == f"{prefix}encoder.layer.1.attention.attn.o.weight"
    stored = files.tensors["encoder.layer.0.attention.output.LayerNorm.bias"].key
    assert stored == f"{prefix}encoder.layer.0.attention.LayerNorm." + ("beta" if old_norms else "bias")
    found, expected = (one.weights(one.tensors) for one in (files, plain))
    for name, view in found.items():
        np.testing.assert_array_equal(view.to_float32(), expected[name].to_float32())


def test_heads_and_old_buffers_are_set_aside(tmp_path):
    folder = checkpoint(tmp_path / "m", prefix="mpnet.")
    more = {"mpnet.embeddings.position_ids": np.zeros((1, 34), np.int64), "lm_head.layer_norm.weight": np.ones(8)}
    save_file(load_file(folder / "model.safetensors") | more, folder / "model.safetensors")
    assert opened(folder).ignored_keys == tuple(sorted(more))


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("encoder.relative_attention_bias.weight", None, "expected a weight of shape [32, 2], found none"),
        ("encoder.relative_attention_bias.weight", np.ones((16, 2), np.float32), "expected shape [32, 2]"),
        ("encoder.layer.1.attention.attn.q.weight", np.full((8, 8), np.nan, np.float32), "finite"),
    ],
)
def test_broken_checkpoints(tmp_path, name, array, says):
    folder = checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights | ({} if array is None else {name: array}), folder / "model.safetensors")
    files = opened(folder)
    with pytest.raises(WeightsError, match=re.escape(says)):
        files.weights(files.spec.parameters().keys() - {"pooler.dense.weight", "pooler.dense.bias"})


def test_token_types_in_the_file_are_refused(tmp_path):
    folder = checkpoint(tmp_path / "m")
    more = {"embeddings.token_type_embeddings.weight": np.ones((2, 8), np.float32)}
    save_file(load_file(folder / "model.safetensors") | more, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"token_type_embeddings.weight: expected only weights of mpnet"):
        opened(folder)
