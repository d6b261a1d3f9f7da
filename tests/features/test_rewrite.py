from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import FeatureError
from layertap.features.concat import concat
from layertap.features.expr import Apply
from layertap.features.rewrite import prompt_of, resolve_layers, rewrite, sources
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.models.sentence import Dense, LayerNorm, SentenceEmbeddingSpec

DENSE = Dense(weight=np.ones((4, 16), np.float32), bias=None, activation="tanh")
NORM = LayerNorm(weight=np.ones(4, np.float32), bias=np.ones(4, np.float32))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_rewritten_feature_is_resolved_and_stays_so(naive, facts, data):
    feature = data.draw(naive.expressions())
    resolved = rewrite(feature, facts)
    assert rewrite(resolved, facts) == resolved
    for source in sources(resolved):
        selection = getattr(source, "selection", ())
        numbers = (selection,) if isinstance(selection, int) else selection
        assert all(0 <= i <= naive.L for i in numbers)


def test_the_last_state_has_one_name_after_rewriting(facts):
    spellings = [last_hidden_state, hidden_states[-1], hidden_states[4]]
    assert {rewrite(e.mean, facts) for e in spellings} == {hidden_states[4].mean}


def test_selections_keep_their_order_and_their_axis(facts):
    assert resolve_layers(hidden_states[::-2], facts) == hidden_states[[4, 2, 0]]
    assert resolve_layers(hidden_states[[-1, 0]].layer_concat, facts) == hidden_states[[4, 0]].layer_concat
    assert resolve_layers(hidden_states[2:3], facts) == hidden_states[[2]]


def test_the_state_before_the_final_norm_is_one_of_a_model_that_has_that_norm(facts, facts_with):
    assert rewrite(last_hidden_state.unnormed.mean, facts) == hidden_states[4].unnormed.mean
    assert rewrite(hidden_states[-2:].unnormed, facts) == hidden_states[[3, 4]].unnormed
    post_norm = facts_with(spec=replace(facts.spec, norm_position="post"))
    with pytest.raises(
        FeatureError,
        match=r"^hidden_states\[-1\].unnormed: this model \(bert\) has no norm after its last block, each block ends "
        r"with its own: write hidden_states\[-1\]$",
    ):
        rewrite(hidden_states[-1].unnormed.mean, post_norm)


@pytest.mark.parametrize("source", [hidden_states[3], hidden_states[0], hidden_states[:-1], hidden_states[[2, 0]]])
def test_lower_states_are_not_normed_anyway(facts, source):
    with pytest.raises(FeatureError) as caught:
        rewrite(source.unnormed.tokens, facts)
    assert str(caught.value) == (
        f"{source}.unnormed: only hidden_states[4] goes through the final norm; lower states are as their blocks leave "
        f"them already: write {source}"
    )
    with pytest.raises(FeatureError, match="-5"):
        rewrite(hidden_states[5].unnormed, facts)


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [
        (SentenceEmbeddingSpec(), last_hidden_state.mean),
        (SentenceEmbeddingSpec(poolings=("cls",), steps=("normalize",)), last_hidden_state.first.normalize),
        (
            SentenceEmbeddingSpec(poolings=("max", "mean_sqrt_len", "weighted_mean", "last"), steps=("normalize",)),
            concat(
                last_hidden_state.max,
                last_hidden_state.mean_sqrt_len,
                last_hidden_state.weighted_mean,
                last_hidden_state.last,
            ).normalize,
        ),
        (SentenceEmbeddingSpec(steps=("normalize", DENSE, NORM), truncate=2), None),
        (
            SentenceEmbeddingSpec(layer_weights={2: 0.25, 4: 0.75}),
            hidden_states[[2, 4]].layer_mix(0.25, 0.75).mean,
        ),
    ],
    ids=str,
)
def test_what_a_folder_declares(facts_with, spec, recipe):
    facts = facts_with(sentence_embedding=spec)
    if recipe is None:
        recipe = Apply(of=Apply(of=last_hidden_state.mean.normalize, step=DENSE), step=NORM).truncate(2)
        assert str(recipe) == "last_hidden_state.mean.normalize.dense(4, tanh).layer_norm(4).truncate(2)"
    assert rewrite(sentence_embedding, facts) == resolve_layers(recipe, facts)
    assert rewrite(concat(sentence_embedding.truncate(1), pooler_output), facts) == resolve_layers(
        concat(recipe.truncate(1), pooler_output), facts
    )


PROMPTS = {"query": "query: ", "passage": "passage: "}


@pytest.mark.parametrize(
    ("include", "default", "asked", "left_out"),
    [
        (True, "query", None, False),
        (False, "query", None, True),
        (False, None, None, False),
        (False, None, "passage", True),
        (True, None, "passage", False),
    ],
)
def test_prompts_are_left_out_of_pooling_where_the_folder_says_so(facts_with, include, default, asked, left_out):
    spec = SentenceEmbeddingSpec(include_prompt=include, prompts=PROMPTS, default_prompt=default)
    found = rewrite(sentence_embedding(prompt=asked), facts_with(sentence_embedding=spec))
    assert str(found) == "hidden_states[4].mean" + ("(prompt=False)" if left_out else "")


def test_a_prompt_that_the_folder_does_not_have(facts_with):
    facts = facts_with(sentence_embedding=SentenceEmbeddingSpec(prompts=PROMPTS))
    with pytest.raises(FeatureError, match=r"sentence_embedding\(prompt=gone\): .* its prompts: query, passage"):
        prompt_of(sentence_embedding(prompt="gone"), facts.sentence_embedding)


def test_no_sentence_embedding(facts_with):
    with pytest.raises(FeatureError, match=r"declares none.*last_hidden_state\.mean"):
        rewrite(sentence_embedding, facts_with(sentence_embedding=None))
    refused = SentenceEmbeddingSpec(refusal="the folder has a default prompt")
    with pytest.raises(FeatureError, match="default prompt"):
        rewrite(sentence_embedding.normalize, facts_with(sentence_embedding=refused))


def test_no_cls_token(facts_with):
    facts = facts_with(has_cls=False)
    with pytest.raises(FeatureError, match=r"no CLS token; use \.first"):
        rewrite(concat(pooler_output, last_hidden_state.cls).normalize, facts)
    assert rewrite(last_hidden_state.first, facts) == hidden_states[4].first
