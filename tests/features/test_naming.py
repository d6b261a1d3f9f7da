from __future__ import annotations

import pytest

from layertap.errors import FeatureError, FeatureSyntaxError
from layertap.features.concat import concat
from layertap.features.naming import named
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.models.sentence import SentenceEmbeddingSpec

MEAN = last_hidden_state.mean


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ("last_hidden_state.mean", {"last_hidden_state.mean": MEAN}),
        ("v = last_hidden_state.mean", {"v": MEAN}),
        (MEAN, {"last_hidden_state.mean": MEAN}),
        (["v = last_hidden_state.mean", pooler_output], {"v": MEAN, "pooler_output": pooler_output}),
        (("a = pooler_output", "b = pooler_output"), {"a": pooler_output, "b": pooler_output}),
        ({"v": "last_hidden_state.mean", "p": pooler_output}, {"v": MEAN, "p": pooler_output}),
    ],
)
def test_what_features_can_be(facts, features, names):
    found = named(features, facts)
    assert found == names
    assert list(found) == list(names)


def test_the_default(facts_with):
    assert named(None, facts_with()) == {"sentence_embedding": sentence_embedding}
    assert named(None, facts_with(sentence_embedding=None)) == {"last_hidden_state.mean": MEAN}
    broken = facts_with(sentence_embedding=SentenceEmbeddingSpec(refusal="module 2_Dense is not known"))
    with pytest.raises(FeatureError, match="2_Dense"):
        named(None, broken)
    assert named("pooler_output", broken)


@pytest.mark.parametrize(
    ("features", "answer"),
    [
        ([], "none is named"),
        ({}, "none is named"),
        (["pooler_output", pooler_output], "twice"),
        (["v = pooler_output", "v = last_hidden_state.mean"], r"'v' is there twice.*v = last_hidden_state\.mean"),
        ({"a b": pooler_output}, "not 'a b'"),
        ({"v.scale": pooler_output}, "not 'v.scale'"),
        ({"class": pooler_output}, "not 'class'"),
        ({"": pooler_output}, "a name is a word"),
        ({3: pooler_output}, "not 3"),
        (hidden_states, r"hidden_states\[-1\]"),
        ([hidden_states], r"hidden_states\[-1\]"),
        ({"v": hidden_states}, r"hidden_states\[-1\]"),
        (3, "a value of type int"),
        (b"pooler_output", "a value of type bytes"),
        ([None], "a value of type NoneType"),
        (iter(["pooler_output"]), "a list of them or a mapping"),
        ({"v": ["pooler_output"]}, "a value of type list"),
    ],
)
def test_what_features_cannot_be(facts, features, answer):
    with pytest.raises(FeatureError, match=answer):
        named(features, facts)


def test_texts_are_parsed(facts):
    with pytest.raises(FeatureSyntaxError):
        named(["last_hidden_states"], facts)
    with pytest.raises(FeatureSyntaxError, match="leave out"):
        named({"v": "w = pooler_output"}, facts)


def test_a_feature_longer_than_a_text_may_be(facts):
    with pytest.raises(FeatureError, match="4096"):
        named(concat(*[last_hidden_state.mean_sqrt_len] * 200), facts)
