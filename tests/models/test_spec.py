from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.positions import PositionTable
from layertap.models.registry import ARCHITECTURES, architecture
from layertap.models.spec import EncoderSpec

FIELDS = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "position_embedding_type",
    "is_decoder",
    "add_cross_attention",
    "quantization_config",
    "pruned_heads",
    "embedding_size",
    "alibi_starting_size",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([0, 1, 2, 12, 768]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def spec_of(name: str = "bert", **fields: object) -> EncoderSpec:
    return architecture(name).spec(ConfigReader(fields))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("position_embedding_type", "relative_key", "only absolute positions"),
        ("is_decoder", True, "runs encoders"),
        ("add_cross_attention", True, "second input"),
        ("quantization_config", {"bits": 4}, "quantised"),
        ("pruned_heads", {"0": [1]}, "pruned"),
        ("embedding_size", 128, "factorised"),
        ("alibi_starting_size", 512, "ALiBi"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["bert", "camembert", "megatron-bert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"],
)
def test_fields_that_change_the_forward_are_refused(name, field, value, says):
    with pytest.raises(UnsupportedModelError, match=f"config.json: {field} is .*{says}"):
        spec_of(name, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "quick_gelu"),
        ("hidden_act", None),
        ("hidden_size", 0),
        ("hidden_size", "768"),
        ("hidden_size", True),
        ("hidden_size", 10**30),
        ("num_attention_heads", 7),
        ("num_hidden_layers", -1),
        ("layer_norm_eps", "tiny"),
        ("layer_norm_eps", float("nan")),
        ("hidden_dropout_prob", 1.5),
        ("pad_token_id", -1),
        ("pad_token_id", 10**6),
        ("vocab_size", None),
    ],
)
def test_impossible_values_name_file_field_expected_and_found(field, value):
    with pytest.raises(ConfigError, match=f"^config.json: {field}: expected .*, found .*"):
        spec_of("bert", **{field: value})


def test_positions_from_ids_need_a_padding_id_and_room_after_it():
    with pytest.raises(ConfigError, match="pad_token_id: expected an id, since positions are counted from it"):
        spec_of("roberta", pad_token_id=None)
    with pytest.raises(ConfigError, match="max_position_embeddings: expected more than pad_token_id"):
        spec_of("roberta", max_position_embeddings=2)
    assert spec_of("bert", pad_token_id=None).pad_token_id is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gelu", "gelu"),
        ("gelu_python", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
        ("swish", "silu"),
    ],
)
def test_activations(written, meant):
    assert spec_of("bert", hidden_act=written).hidden_act == meant


@pytest.mark.parametrize(
    ("name", "rows", "pad", "limit"),
    [
        ("bert", 512, 0, 512),
        ("roberta", 514, 1, 512),
        ("xlm-roberta", 514, 1, 512),
        ("camembert", 514, 3, 510),
        ("megatron-bert", 512, 0, 512),
        ("xlm-roberta-xl", 514, 1, 512),
        ("roberta-prelayernorm", 514, 1, 512),
    ],
)
def test_limits(name, rows, pad, limit):
    assert spec_of(name, max_position_embeddings=rows, pad_token_id=pad).positions.max_length == limit


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(ARCHITECTURES)), fields=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_config_gives_a_spec_or_one_of_our_errors(name, fields):
    try:
        spec = spec_of(name, **fields)
    except ConfigError:  # the one kind of error that is allowed
        return
    assert spec.head_size * spec.num_attention_heads == spec.hidden_size
    assert spec.positions.max_length >= 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.none() | st.integers(0, 4))
def test_position_ids_against_a_plain_loop(ids, padding_id):
    table = PositionTable(rows=64, padding_id=padding_id)
    expected, counted = [], 0
    for i, token in enumerate(ids):
        if padding_id is None:
            expected.append(i)
        elif token == padding_id:
            expected.append(padding_id)
        else:
            counted += 1
            expected.append(padding_id + counted)
    found = table.position_ids(np.array(ids, dtype=np.int32))
    assert found.dtype == np.int32
    assert found.tolist() == expected


@given(st.integers(1, 30), st.integers(0, 4))
def test_the_longest_sequence_reaches_the_last_row(extra, padding_id):
    table = PositionTable(rows=padding_id + 1 + extra, padding_id=padding_id)
    ids = np.full(table.max_length, padding_id + 1, dtype=np.int32)
    assert table.position_ids(ids).max() == table.rows - 1
