from __future__ import annotations

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec

# config.json of albert-base-v2, as it is on the hub
BASE = {
    "architectures": ["AlbertForMaskedLM"],
    "attention_probs_dropout_prob": 0,
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "inner_group_num": 1,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "albert",
    "net_structure_type": 0,
    "num_attention_heads": 12,
    "num_hidden_groups": 1,
    "num_hidden_layers": 12,
    "num_memory_blocks": 0,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30000,
}


def spec_of(**fields: object) -> EncoderSpec:
    return architecture("albert").spec(ConfigReader(fields))


def test_base():
    spec = spec_of(**BASE)
    assert (spec.num_hidden_layers, spec.num_states, spec.num_blocks) == (12, 13, 1)
    assert spec.blocks == (0,) * 12
    assert spec.hidden_act == "gelu_tanh"
    assert (spec.hidden_dropout_prob, spec.attention_probs_dropout_prob) == (0.0, 0.0)
    assert spec.pooler
    shapes = spec.parameters()
    assert shapes["embeddings.word_embeddings.weight"] == (30000, 128)
    assert shapes["embeddings.LayerNorm.weight"] == (128,)
    assert shapes["embeddings.projection.weight"] == (768, 128)
    assert not [name for name in shapes if name.startswith("encoder.layer.1.")]


def test_the_activation_is_the_tanh_form_where_none_is_stated():
    assert spec_of(**{name: value for name, value in BASE.items() if name != "hidden_act"}) == spec_of(**BASE)
    assert spec_of(**BASE | {"hidden_act": "gelu"}).hidden_act == "gelu"  # version 1 and its descendants


def test_the_mapping_in_is_there_at_any_width():
    spec = spec_of(**BASE | {"embedding_size": 768})
    assert spec.parameters()["embeddings.projection.weight"] == (768, 768)


@pytest.mark.parametrize(
    ("layers", "groups", "blocks"),
    [
        (6, 2, (0, 0, 0, 1, 1, 1)),
        (5, 2, (0, 0, 0, 1, 1)),
        (5, 3, (0, 0, 1, 1, 2)),
        (4, 4, (0, 1, 2, 3)),
        (3, 1, (0, 0, 0)),
    ],
)
def test_layers_of_groups(layers, groups, blocks):
    assert spec_of(num_hidden_layers=layers, num_hidden_groups=groups).blocks == blocks


def test_every_group_is_used_however_many_there_are():
    for layers in range(1, 40):
        for groups in range(1, layers + 1):
            spec = spec_of(num_hidden_layers=layers, num_hidden_groups=groups)
            assert sorted(set(spec.blocks)) == list(range(groups))
            assert spec.blocks == tuple(sorted(spec.blocks))


def test_a_group_of_several_layers_is_refused():
    with pytest.raises(UnsupportedModelError, match="inner_group_num is 2: a group of several layers"):
        spec_of(**BASE | {"inner_group_num": 2})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_hidden_groups": 13}, r"num_hidden_groups: expected at most num_hidden_layers \(12\), found 13"),
        ({"num_hidden_groups": 0}, "num_hidden_groups: expected a whole number from 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: expected a whole number from 1 to 10000"),
        ({"embedding_size": None}, "embedding_size: expected a whole number"),
        ({"num_attention_heads": 7}, r"num_attention_heads: expected a divisor of hidden_size \(768\)"),
        ({"hidden_act": "gelu_9"}, "hidden_act: expected one of"),
    ],
)
def test_impossible_values(fields, says):
    with pytest.raises(ConfigError, match=says):
        spec_of(**BASE | fields)
