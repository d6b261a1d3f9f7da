from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import FeatureError
from layertap.features.concat import concat
from layertap.features.expr import Tokens
from layertap.features.parse import parse, parse_named
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding

SOURCES = [last_hidden_state, hidden_states, hidden_states[-4:], pooler_output, sentence_embedding]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_text_and_expression_are_the_same(naive, data):
    feature = data.draw(naive.expressions())
    assert parse(str(feature)) == feature
    assert str(parse(str(feature))) == str(feature)
    assert parse_named(f"v = {feature}") == ("v", feature)
    assert hash(parse(str(feature))) == hash(feature)
    assert pickle.loads(pickle.dumps(feature)) == feature
    assert copy.deepcopy(feature) == feature


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        (hidden_states[-4:].layer_mean.mean, "hidden_states[-4:].layer_mean.mean"),
        (hidden_states[[1, 6]].layer_mix(0.5, -2).cls, "hidden_states[[1, 6]].layer_mix(0.5, -2.0).cls"),
        (hidden_states[::2], "hidden_states[::2]"),
        (hidden_states[:], "hidden_states[:]"),
        (hidden_states[np.int64(3)], "hidden_states[3]"),
        (last_hidden_state[:, 0], "last_hidden_state.first"),
        (hidden_states[-1][:, 0, :], "hidden_states[-1].first"),
        (hidden_states[1:3].layer_sum[:, 0], "hidden_states[1:3].layer_sum.first"),
        (last_hidden_state.tokens(), "last_hidden_state.tokens"),
        (last_hidden_state.mean(), "last_hidden_state.mean"),
        (last_hidden_state.mean(special=False), "last_hidden_state.mean(special=False)"),
        (last_hidden_state.mean(special=False)(special=True), "last_hidden_state.mean"),
        (hidden_states[1:3].layer_max().normalize(), "hidden_states[1:3].layer_max.normalize"),
        (pooler_output.truncate(8).astype("int8"), "pooler_output.truncate(8).astype(int8)"),
        (concat(concat(pooler_output, last_hidden_state.cls), sentence_embedding),
         "concat(pooler_output, last_hidden_state.cls, sentence_embedding)"),
    ],
    ids=str,
)  # fmt: skip
def test_canonical_text(feature, text):
    assert str(feature) == repr(feature) == text


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_feature_is_not_a_container_an_array_or_a_truth_value(source):
    with pytest.raises(TypeError):
        iter(source)
    with pytest.raises(TypeError):
        _ = 1 in source
    with pytest.raises(FeatureError):
        np.asarray(source)
    with pytest.raises(FeatureError):
        bool(source)
    assert pickle.loads(pickle.dumps(source)) == source


def test_features_are_immutable():
    with pytest.raises(AttributeError):
        last_hidden_state.mean.op = "max"
    with pytest.raises((AttributeError, TypeError)):
        last_hidden_state.colour = "red"


REFUSED = [
    # what, part of the answer
    (lambda: last_hidden_state.normalize.mean, r"write last_hidden_state\.mean\.normalize"),
    (lambda: hidden_states[-4:].mean.layer_mean, r"write hidden_states\[-4:\]\.layer_mean\.mean"),
    (lambda: hidden_states[1:3].tokens.layer_mean, r"write hidden_states\[1:3\]\.layer_mean\.tokens"),
    (lambda: last_hidden_state.unnormed.unnormed, "it is unnormed already; what can follow: tokens, words"),
    (lambda: hidden_states[:].layer_mean.unnormed, r"write hidden_states\[:\]\.unnormed\.layer_mean"),
    (lambda: sentence_embedding.unnormed, "only hidden states"),
    (lambda: concat(pooler_output, pooler_output).unnormed, "right after its source"),
    (lambda: hidden_states[1:3].layer_mean.layer_sum, "folded already; what can follow: tokens, words, spans, cls"),
    (lambda: last_hidden_state.layer_mean, r"one layer; select several, as in hidden_states\[-4:\]"),
    (lambda: last_hidden_state.mean.max, "one vector a text already; what can follow: normalize, truncate, astype"),
    (lambda: hidden_states[1:3].mean.max, "one vector a layer already"),
    (lambda: last_hidden_state.mean.tokens, "one vector a text already"),
    (lambda: last_hidden_state.tokens.tokens, "what can follow: cls, first"),
    (lambda: pooler_output.mean, "one vector a text already"),
    (lambda: pooler_output.layer_mean, "one vector a text"),
    (lambda: pooler_output.astype("int8").normalize, r"write pooler_output\.normalize\.astype\(int8\)|last step"),
    (lambda: pooler_output.astype("int8").astype("int8"), "astype is the last step; what can follow: nothing"),
    (lambda: concat(last_hidden_state, last_hidden_state).mean, "what can follow: normalize, truncate, astype"),
    (lambda: pooler_output.astype("float32"), "float16, int8, binary, not 'float32'; results are float32 without"),
    (lambda: pooler_output.astype(np.float16), "float16, int8, binary"),
    (lambda: pooler_output.truncate(0), "from 1"),
    (lambda: pooler_output.truncate(True), "from 1"),
    (lambda: pooler_output.truncate(2.0), "from 1"),
    (lambda: hidden_states[1:3].layer_mix(), "one weight a layer"),
    (lambda: hidden_states[1:3].layer_mix(float("nan"), 1), "finite"),
    (lambda: hidden_states[1:3].layer_mix(10**400, 1), "finite"),
    (lambda: hidden_states[1:3].layer_mix("1", 1), "finite"),
    (lambda: hidden_states[1:3].layer_mix(1, 1)(), "no second parentheses"),
    (lambda: last_hidden_state.cls(special=False), r"\.first\(special=False\)"),
    (lambda: last_hidden_state.mean(special=0), "True or False"),
    (lambda: concat(pooler_output), "two or more"),
    (lambda: concat(pooler_output, "pooler_output"), r"layertap\.parse"),
    (lambda: concat(pooler_output, hidden_states), r"hidden_states\[-1\]"),
    (lambda: concat(pooler_output, last_hidden_state), r"as in last_hidden_state\.mean"),
    (lambda: concat(pooler_output, hidden_states[:].mean), r"layer_mean"),
    (lambda: concat(pooler_output.astype("int8"), pooler_output), r"astype comes after concat"),
    (lambda: Tokens(of=7), "not to a value of type int"),
]


@pytest.mark.parametrize(("make", "answer"), REFUSED, ids=[answer[:30] for _, answer in REFUSED])
def test_refusals_say_what_works(make, answer):
    with pytest.raises(FeatureError, match=answer):
        make()


def test_a_feature_with_endless_steps_is_refused():
    feature = pooler_output
    for _ in range(64):
        feature = feature.normalize
    assert parse(str(feature)) == feature
    with pytest.raises(FeatureError, match="at most 64 steps"):
        _ = feature.normalize
    joined = pooler_output
    for _ in range(32):
        joined = concat(joined, pooler_output).normalize
    assert parse(str(joined)) == joined
    with pytest.raises(FeatureError, match="at most 64 steps"):
        concat(joined, pooler_output)
    doubled = pooler_output
    for _ in range(8):
        doubled = concat(doubled, doubled).normalize
    with pytest.raises(FeatureError, match="1000 parts in all"):
        concat(doubled, doubled)


def test_steps_that_are_none_are_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"last_hidden_state has no step 'maen'; did you mean 'mean'\?"):
        _ = last_hidden_state.maen
    with pytest.raises(AttributeError, match="write mean, or layer_mean for layers"):
        _ = hidden_states[1].avg
    with pytest.raises(AttributeError, match="hidden_states needs its layers"):
        _ = hidden_states.mean
    assert not hasattr(last_hidden_state, "__array_interface__")
    assert copy.deepcopy(hidden_states[1].words("mean")) == hidden_states[1].words("mean")
    with pytest.raises(FeatureError, match="the step words without its parentheses"):
        concat(last_hidden_state.words, last_hidden_state.cls)
