from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.checkpoints.keys import (
    account_for,
    parts_of,
    stored_layout,
    to_canonical,
    to_stored,
    used_rules,
    used_splits,
)
from layertap.errors import WeightsError
from layertap.models.config import ConfigReader
from layertap.models.key_rules import KeyRule
from layertap.models.registry import ARCHITECTURES, architecture
from layertap.models.spec import Architecture


def names_of(row: Architecture) -> list[str]:
    return list(row.spec(ConfigReader({"num_hidden_layers": 12})).parameters())


@given(data=st.data())
def test_a_files_spelling_is_found_and_is_the_way_back(data):
    """Whatever subset of the rules a file uses, its keys lead to the names, and the rules found lead back."""
    row = architecture(data.draw(st.sampled_from(sorted(ARCHITECTURES))))
    spelling = [rule for rule in row.key_rules if data.draw(st.booleans())]
    splits = [rule for rule in row.split_rules if data.draw(st.booleans())]
    names = names_of(row)
    layout = stored_layout(names, spelling, splits)
    assert sorted(name for held in layout.values() for name in held) == sorted(names)
    assert {key: parts_of(key, row.key_rules, row.split_rules) for key in layout} == layout
    found = used_rules(layout, row.key_rules)
    # where two rules have one canonical form, a file uses one of them
    assert set(found) <= set(spelling)
    assert stored_layout(names, found, used_splits(layout, row.key_rules, row.split_rules)) == layout


def test_mixed_spellings_are_read_key_by_key():
    row = architecture("bert")
    table = account_for(
        ["bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.bias", "bert.embeddings.word_embeddings.weight"],
        rules=row.key_rules,
        ignored=row.ignored_keys,
        file="f",
    )
    assert table.stored == {
        "embeddings.LayerNorm.weight": "bert.embeddings.LayerNorm.gamma",
        "embeddings.LayerNorm.bias": "embeddings.LayerNorm.bias",
        "embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
    }


@pytest.mark.parametrize(
    "pair",
    [
        ("bert.pooler.dense.bias", "pooler.dense.bias"),
        ("embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        ("embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.gamma"),
    ],
)
def test_two_keys_of_one_weight_are_refused(pair):
    row = architecture("bert")
    with pytest.raises(WeightsError, match=f"f: {pair[0]} and {pair[1]}: expected one of them"):
        account_for(pair, rules=row.key_rules, ignored=row.ignored_keys, file="f")


def test_every_key_is_somewhere():
    row = architecture("roberta")
    keys = [*names_of(row), "lm_head.bias", "roberta.embeddings.position_ids", "encoder.layer.3.extra", "new.thing"]
    table = account_for(keys, rules=row.key_rules, ignored=row.ignored_keys, file="f")
    assert sorted([*table.stored.values(), *table.ignored]) == sorted(keys)
    assert table.ignored == ("lm_head.bias", "roberta.embeddings.position_ids")


@pytest.mark.parametrize(
    ("keys", "blocks"),
    [
        ([], 0),
        (["encoder.layer.0.output.dense.bias"], 1),
        (["encoder.layer.0.x", "encoder.layer.11.x", "encoder.layer.2.x"], 12),
        (["encoder.layer." + "9" * 5000 + ".x"], 0),
    ],
)
def test_number_of_blocks(keys, blocks):
    row = architecture("bert")
    assert account_for(keys, rules=row.key_rules, ignored=row.ignored_keys, file="f").num_blocks == blocks


def test_rules_are_undone_from_the_last_to_the_first():
    rules = (KeyRule("model.*", "*"), KeyRule("layer*", "block*"))
    assert to_canonical("model.layer.0", rules) == "block.0"
    assert to_stored("block.0", rules) == "model.layer.0"
    assert used_rules(["model.layer.0"], rules) == rules
