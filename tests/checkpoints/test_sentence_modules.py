"""The modules behind the pooling: their configs and weights, and what is refused of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import locate
from layertap.checkpoints.tensors import read_safetensors
from layertap.errors import ConfigError, WeightsError
from layertap.models.sentence import Dense, LayerNorm, SentenceEmbeddingSpec
from tests.writing import write

PLACES = {
    "Transformer": "",
    "WeightedLayerPooling": "1_Layers",
    "Pooling": "1_Pooling",
    "Dense": "2_Dense",
    "LayerNorm": "3_LayerNorm",
    "Dropout": "4_Dropout",
    "Normalize": "5_Normalize",
}
LINEAR = {"linear.weight": np.arange(256, dtype=np.float32).reshape(8, 32), "linear.bias": np.ones(8, np.float32)}
DENSE = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
NORM = {"norm.weight": np.ones(8, np.float32), "norm.bias": np.zeros(8, np.float32)}

Arrays = dict[str, np.ndarray]
Write = Callable[..., None]
Read = Callable[[], SentenceEmbeddingSpec]


@pytest.fixture
def put(sentence_folder, write_tensors) -> Write:
    """`put(file, json)`, or `put(file, json, arrays)` with the weights beside it."""

    def put(name: str, value: object, arrays: Arrays | None = None, dtype: str = "F32") -> None:
        path = write(sentence_folder / name, value)
        if arrays is not None:
            write_tensors(path.parent, arrays, dtype=dtype)

    put("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    put("modules.json", modules("Transformer", "Pooling", "Dense"))
    return put


@pytest.fixture
def read(sentence_folder) -> Read:
    def read() -> SentenceEmbeddingSpec:
        found = open_model(locate(sentence_folder)).sentence_embedding
        assert found is not None
        return found

    return read


def modules(*kinds: str) -> list[dict[str, Any]]:
    return [{"path": PLACES[kind], "type": f"sentence_transformers.models.{kind}"} for kind in kinds]


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.GELU", "torch.nn.GELU"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_dense(put, read, sentence_folder, name, dtype):
    put("2_Dense/config.json", DENSE | {"activation_function": name}, LINEAR, dtype)
    found = read()
    (step,) = found.steps
    assert isinstance(step, Dense)
    assert str(step) == "dense(8, gelu, bias)"
    np.testing.assert_array_equal(step.weight, LINEAR["linear.weight"])
    np.testing.assert_array_equal(step.bias, LINEAR["linear.bias"])
    assert step.residual == "none"
    for file in ("modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"):
        assert file in found.files
        assert file in open_model(locate(sentence_folder)).hashes()


def test_dense_with_a_residual(put, read):
    residual = {"residual.weight": np.full((8, 32), 2, np.float32)}
    put("2_Dense/config.json", DENSE | {"use_residual": True}, LINEAR | residual)
    (step,) = read().steps
    np.testing.assert_array_equal(step.residual, residual["residual.weight"])
    square = {"linear.weight": np.eye(32, dtype=np.float32)}
    put("2_Dense/config.json", DENSE | {"use_residual": True, "out_features": 32, "bias": False}, square)
    (step,) = read().steps
    assert (step.residual, step.bias) == ("identity", None)


def test_sizes_follow_one_another(put, read):
    put("modules.json", modules("Transformer", "Pooling", "Dense", "Dropout", "LayerNorm", "Normalize"))
    put("2_Dense/config.json", DENSE, LINEAR)
    put("3_LayerNorm/config.json", {"dimension": 8}, NORM)
    put("config_sentence_transformers.json", {"truncate_dim": 16})
    found = read()
    assert [type(step) for step in found.steps] == [Dense, LayerNorm, str]
    assert found.truncate is None
    put("3_LayerNorm/config.json", {"dimension": 32})
    with pytest.raises(ConfigError, match=r"dimension: expected 8, the size of the vectors before it, found 32"):
        read()


@pytest.mark.parametrize("all_states", ["config.json", "config_args", "config_kwargs", None])
def test_weighted_layer_pooling(put, read, sentence_folder, all_states):
    put("modules.json", modules("Transformer", "WeightedLayerPooling", "Pooling"))
    config = {"word_embedding_dimension": 32, "num_hidden_layers": 3, "layer_start": 2}
    put("1_Layers/config.json", config, {"layer_weights": np.array([1, 3], np.float32)})
    if all_states == "config.json":
        put("config.json", json.loads((sentence_folder / "config.json").read_text()) | {"output_hidden_states": True})
    elif all_states is not None:
        put("sentence_bert_config.json", {all_states: {"output_hidden_states": True}})
    # without all states the module has nothing to weigh, and passes the last one on
    assert read() == SentenceEmbeddingSpec(layer_weights={2: 0.25, 3: 0.75} if all_states else None)
    put("1_Layers/config.json", config | {"num_hidden_layers": 12})
    assert "weighs hidden states 2 to 12, and the encoder has 0 to 3" in str(read().refusal)
    put("1_Layers/config.json", config, {"layer_weights": np.array([1, -1], np.float32)})
    assert "add up to zero" in str(read().refusal)


@pytest.mark.parametrize(
    ("weights", "config", "says"),
    [
        ({}, {}, "expected linear.weight, linear.bias, found none"),
        (LINEAR, {"bias": False}, "expected linear.weight, found linear.bias, linear.weight"),
        (LINEAR, {"out_features": 9}, r"linear.weight: expected shape \[9, 32\] .*, found \[8, 32\]"),
        (LINEAR, {"use_residual": True}, "expected linear.weight, linear.bias, residual.weight, found"),
        (LINEAR | {"linear.bias": np.full(8, np.nan, np.float32)}, {}, "linear.bias: expected finite .*, found NaN"),
    ],
)
def test_damaged_weights_are_errors(put, read, sentence_folder, weights, config, says):
    put("2_Dense/config.json", DENSE | config, weights)
    with pytest.raises(WeightsError, match=f"^{sentence_folder}/2_Dense/model.safetensors: {says}"):
        read()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"in_features": 16}, "in_features: expected 32, the size of the vectors before it, found 16"),
        ({"out_features": 0}, "out_features: expected a whole number"),
        ({"bias": "yes"}, "bias: expected true or false"),
    ],
)
def test_impossible_configs_are_errors(put, read, sentence_folder, config, says):
    put("2_Dense/config.json", DENSE | config, LINEAR)
    with pytest.raises(ConfigError, match=f"^{sentence_folder}/2_Dense/config.json: {says}"):
        read()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"activation_function": "own.Activation"}, "activation_function is 'own.Activation'; computed are Identity"),
        ({"activation_function": "torch.nn.modules.activation.Mish"}, "activation_function is"),
        ({"activation_function": "torch.nn.functional.gelu"}, "activation_function is"),
        ({"activation_function": None}, "activation_function is None"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ({"module_output_name": "other"}, "module_output_name is 'other'"),
        ({"scale": 2}, "scale: not known"),
    ],
)
def test_other_dense_modules_are_refused(put, read, config, says):
    put("2_Dense/config.json", DENSE | config, LINEAR)
    assert str(read().refusal).startswith(f"2_Dense/config.json: {says}")


def test_weights_that_are_missing_or_a_pickle_file(put, read, sentence_folder):
    put("2_Dense/config.json", DENSE, LINEAR)
    weights = sentence_folder / "2_Dense/model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert str(read().refusal).startswith("2_Dense/pytorch_model.bin: a pickle file")
    found = open_model(locate(sentence_folder), allow_pickle=True, read_pickle=read_safetensors).sentence_embedding
    assert found is not None
    assert isinstance(found.steps[0], Dense)
    assert "2_Dense/pytorch_model.bin" in found.files
    weights.with_name("pytorch_model.bin").unlink()
    assert read().refusal == "modules.json: 2_Dense/model.safetensors is missing"
