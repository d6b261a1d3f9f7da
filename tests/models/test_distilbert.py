from __future__ import annotations

import numpy as np
import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.positions import PositionTable
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec

# config.json of distilbert-base-uncased, as it is on the hub
BASE = {
    "activation": "gelu",
    "architectures": ["DistilBertForMaskedLM"],
    "attention_dropout": 0.1,
    "dim": 768,
    "dropout": 0.1,
    "hidden_dim": 3072,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "model_type": "distilbert",
    "n_heads": 12,
    "n_layers": 6,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
    "transformers_version": "4.10.0.dev0",
    "vocab_size": 30522,
}


def spec_of(**fields: object) -> EncoderSpec:
    return architecture("distilbert").spec(ConfigReader(fields))


def test_its_own_names_of_sizes():
    spec = spec_of(**BASE)
    assert (spec.hidden_size, spec.num_hidden_layers, spec.num_attention_heads) == (768, 6, 12)
    assert (spec.intermediate_size, spec.hidden_act) == (3072, "gelu")
    assert (spec.num_states, spec.positions) == (7, PositionTable(rows=512))
    small = spec_of(dim=32, n_layers=2, n_heads=4, hidden_dim=48, activation="relu", dropout=0.2, attention_dropout=0.3)
    assert (small.hidden_size, small.num_hidden_layers, small.num_attention_heads) == (32, 2, 4)
    assert (small.intermediate_size, small.hidden_act) == (48, "relu")
    assert (small.hidden_dropout_prob, small.attention_probs_dropout_prob) == (0.2, 0.3)


def test_no_token_types_and_no_pooler():
    spec = spec_of(**BASE, type_vocab_size=2)
    assert (spec.type_vocab_size, spec.pooler) == (0, False)
    assert not [name for name in spec.parameters() if "token_type" in name or "pooler" in name]


def test_eps_is_fixed():
    assert spec_of(**BASE).layer_norm_eps == spec_of(**BASE, layer_norm_eps=1e-5).layer_norm_eps == 1e-12


def test_sinusoidal_positions_are_a_stored_table():
    sinusoidal = spec_of(**BASE | {"sinusoidal_pos_embds": True})
    assert sinusoidal == spec_of(**BASE)
    assert sinusoidal.parameters()["embeddings.position_embeddings.weight"] == (512, 768)


def test_positions_do_not_depend_on_ids():
    ids = np.array([5, 0, 7, 0], dtype=np.int32)
    assert spec_of(**BASE).positions.position_ids(ids).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("own", "general"), [("dim", "hidden_size"), ("n_heads", "num_attention_heads"), ("n_layers", "num_hidden_layers")]
)
def test_general_names_that_transformers_takes_too(own, general):
    fields = {"dim": 48, "n_heads": 4, "n_layers": 3}
    others = {name: value for name, value in fields.items() if name != own}
    assert spec_of(**others, **{general: fields[own]}) == spec_of(**fields)
    assert spec_of(**fields, **{general: fields[own]}) == spec_of(**fields)
    with pytest.raises(ConfigError, match=rf"{general}: expected what {own} says \({fields[own]}\), found 96"):
        spec_of(**fields, **{general: 96})


def test_transformers_takes_them_too():
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig.from_dict({"hidden_size": 48, "num_attention_heads": 4})
    assert spec_of(hidden_size=48, num_attention_heads=4) == spec_of(**config.to_dict())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("dim", None),
        ("n_heads", 7),
        ("n_layers", 0),
        ("hidden_dim", "wide"),
        ("activation", "quick_gelu"),
        ("dropout", 2),
        ("attention_dropout", -1),
        ("max_position_embeddings", 0),
        ("pad_token_id", 30522),
    ],
)
def test_impossible_values_are_named_as_in_the_file(field, value):
    with pytest.raises(ConfigError, match=f"^config.json: {field}: expected .*, found "):
        spec_of(**BASE | {field: value})


@pytest.mark.parametrize("field", ["quantization_config", "pruned_heads", "is_decoder", "position_embedding_type"])
def test_other_forwards_are_refused(field):
    with pytest.raises(UnsupportedModelError, match=f"{field} is 'other'"):
        spec_of(**BASE, **{field: "other"})
