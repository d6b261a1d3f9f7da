from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.models.config import ConfigReader
from layertap.models.key_rules import KeyRule
from layertap.models.registry import ARCHITECTURES, architecture

PIECE = st.text(alphabet="ab.", max_size=4)


def canonical_names(name: str) -> list[str]:
    return list(architecture(name).spec(ConfigReader({"num_hidden_layers": 2})).parameters())


@given(head=PIECE, tail=PIECE, new_head=PIECE, new_tail=PIECE, middle=PIECE)
def test_a_rule_is_its_own_way_back(head, tail, new_head, new_tail, middle):
    rule = KeyRule(f"{head}*{tail}", f"{new_head}*{new_tail}")
    stored, canonical = head + middle + tail, new_head + middle + new_tail
    assert rule.to_canonical(stored) == canonical
    assert rule.to_stored(canonical) == stored


@given(key=st.text(alphabet="ab.", max_size=8), head=PIECE, tail=PIECE)
def test_a_rule_applies_only_to_what_has_its_form(key, head, tail):
    applies = len(key) >= len(head) + len(tail) and key.startswith(head) and key.endswith(tail)
    assert (KeyRule(f"{head}*{tail}", "*").to_canonical(key) is not None) == applies


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_canonical_names_are_left_alone(name):
    for rule in architecture(name).key_rules:
        for key in canonical_names(name):
            assert rule.to_canonical(key) is None, (rule, key)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_weight_is_set_aside_and_heads_are(name):
    row = architecture(name)
    prefix = row.key_rules[0].stored.removesuffix("*")
    for key in canonical_names(name):
        assert not row.ignored_keys.fullmatch(key)
        assert not row.ignored_keys.fullmatch(prefix + key)
    for key in ("cls.predictions.bias", "lm_head.dense.weight", "classifier.weight", "qa_outputs.bias"):
        assert row.ignored_keys.fullmatch(key)
    for key in ("embeddings.position_ids", prefix + "embeddings.position_ids"):
        assert row.ignored_keys.fullmatch(key)
