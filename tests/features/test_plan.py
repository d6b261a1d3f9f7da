from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import FeatureError, OptionError, UntrainedPoolerError
from layertap.features.concat import concat
from layertap.features.expr import AsType
from layertap.features.grammar import PoolOp
from layertap.features.plan import Input, make_plan
from layertap.features.program import Capture
from layertap.features.rules import Rules
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.models.sentence import SentenceEmbeddingSpec

TEXTS = [([5, 6, 7, 8, 9], (1, 4)), ([5, 9], (1, 1)), ([5, 1, 9], (1, 2)), ([5], (0, 0))]
ALL = frozenset({0})
ON = Rules()


def program_of(facts, *features, rules=ON):
    plan = make_plan({str(f): f for f in features}, facts, rules=rules)
    (program,) = plan.programs(frozenset(range(len(plan.inputs))))
    return program


def without_astype(features):
    # int8 and binary turn a difference of one rounding into a whole step
    return {name: f.of if isinstance(f, AsType) else f for name, f in features.items()}


def features_from(data, naive):
    drawn = data.draw(st.lists(naive.expressions(), min_size=1, max_size=4))
    return without_astype({f"f{i}": e for i, e in enumerate(drawn)})


# -- results do not depend on rules


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_feature_equals_the_oracle_whatever_the_rules(naive, facts, data):
    features = features_from(data, naive)
    texts = data.draw(naive.batches())
    off = data.draw(st.lists(st.sampled_from(Rules.names()), unique=True))
    plan = make_plan(features, facts, rules=Rules.without(*off))
    results = naive.run(plan, naive.batch(texts))
    for name, feature in features.items():
        wanted = [naive.oracle(feature, ids, content) for ids, content in texts]
        wanted = np.concatenate(wanted) if feature.form.ragged else np.stack(wanted)
        np.testing.assert_allclose(results[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", Rules.names())
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_rule_changes_no_result(naive, facts, rule, data):
    features = features_from(data, naive)
    batch = naive.batch(data.draw(naive.batches()))
    on = naive.run(make_plan(features, facts), batch)
    off = naive.run(make_plan(features, facts, rules=Rules.without(rule)), batch)
    assert list(on) == list(off)
    for name, value in on.items():
        np.testing.assert_allclose(value, off[name], rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rules_never_make_a_plan_run_more(naive, facts, data):
    features = features_from(data, naive)
    batch = naive.batch(data.draw(naive.batches()))
    ran, plain = naive.Backend(), naive.Backend()
    naive.run(make_plan(features, facts), batch, ran)
    naive.run(make_plan(features, facts, rules=Rules.without(*Rules.names())), batch, plain)
    assert len(ran.ran) == 1
    assert len(plain.ran) == len(features)
    assert all(stop == naive.L for stop, _, _ in plain.ran)
    assert all(rows == batch.num_tokens for _, rows, _ in plain.ran)
    asked = any("pooler_output" in str(f) for f in features.values())
    assert ran.poolers == asked
    assert plain.poolers == len(features)


FOLDS = ["layer_mean", "layer_sum", "layer_max", "layer_concat", "layer_mix"]
POOLINGS = get_args(PoolOp)


@pytest.mark.parametrize("rules", [ON, Rules.without("fold"), Rules.without("capture")], ids=["on", "fold", "capture"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("fold", FOLDS)
def test_every_fold_with_every_pooling(naive, facts, fold, pooling, rules):
    layers = hidden_states[[4, 1, 3]]
    folded = layers.layer_mix(0.5, -2, 3) if fold == "layer_mix" else getattr(layers, fold)
    feature = getattr(folded, pooling)
    result = naive.run(make_plan({"v": feature}, facts, rules=rules), naive.batch(TEXTS))["v"]
    wanted = np.stack([naive.oracle(feature, ids, content) for ids, content in TEXTS])
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


# -- what was not asked for is not in the program


def test_stop(naive, facts):
    assert program_of(facts, hidden_states[2].mean).stop == 2
    assert program_of(facts, hidden_states[0].mean).stop == 0
    assert program_of(facts, hidden_states[[3, 1]].mean, hidden_states[0].max).stop == 3
    assert program_of(facts, hidden_states[2].mean, rules=Rules.without("stop")).stop == naive.L


def test_only_the_layers_asked_for_are_captured(facts):
    program = program_of(facts, hidden_states[[3, 1]].mean)
    assert program.captures == (
        Capture(layers=(3,), segments="tokens", reduce="sum"),
        Capture(layers=(1,), segments="tokens", reduce="sum"),
    )


def test_the_normed_and_the_unnormed_state_share_what_lies_below(facts):
    features = {
        "n": hidden_states[-2:].mean,
        "u": hidden_states[-2:].unnormed.mean,
        "c": last_hidden_state.unnormed.max,
    }
    (program,) = make_plan(features, facts).programs(frozenset({0}))
    assert [(c.layers, c.unnormed, c.reduce) for c in program.captures] == [
        ((3,), False, "sum"),
        ((4,), False, "sum"),
        ((4,), True, "sum"),
        ((4,), True, "max"),
    ]


def test_pooled_features_capture_no_whole_state(facts):
    features = [hidden_states[:].mean, last_hidden_state.cls, hidden_states[-2:].layer_max.min]
    assert all(c.segments is not None for c in program_of(facts, *features).captures)
    whole = program_of(facts, *features, rules=Rules.without("capture"))
    assert all(c.segments is None and len(c.layers) == 1 for c in whole.captures)


@pytest.mark.parametrize(
    "feature",
    [
        last_hidden_state.cls,
        last_hidden_state.first,
        last_hidden_state.last(special=False),
        pooler_output,
        hidden_states[[1, 3]].layer_mean.first,
        hidden_states[[1, 3]].layer_max.last,
        concat(last_hidden_state.cls, hidden_states[1].mean),
    ],
    ids=str,
)
def test_rows(naive, facts, feature):
    assert program_of(facts, feature).top_rows_only
    assert not program_of(facts, feature, rules=Rules.without("rows")).top_rows_only
    batch = naive.batch(TEXTS)
    few, every = naive.Backend(), naive.Backend()
    naive.run(make_plan({"v": feature}, facts), batch, few)
    naive.run(make_plan({"v": feature}, facts, rules=Rules.without("rows")), batch, every)
    assert few.ran[0][1] <= len(TEXTS) < batch.num_tokens == every.ran[0][1]


@pytest.mark.parametrize(
    "features",
    [
        [last_hidden_state.mean],
        [last_hidden_state],
        [last_hidden_state.cls, last_hidden_state.max],
        [hidden_states[0].cls],
        [hidden_states[[1, 4]].layer_max.min],
    ],
    ids=str,
)
def test_all_rows_where_the_top_is_needed_whole(facts, features):
    assert not program_of(facts, *features).top_rows_only


def test_rows_are_not_pruned_at_a_block_that_nothing_reads(facts):
    assert not program_of(facts, hidden_states[2].cls, rules=Rules.without("stop")).top_rows_only


def test_share(facts):
    features = {"a": last_hidden_state.mean, "b": last_hidden_state.sum, "c": hidden_states[1].cls}
    plan = make_plan(features, facts)
    (program,) = plan.programs(ALL)
    assert len(program.captures) == 2  # mean and sum read the same sums
    alone = make_plan(features, facts, rules=Rules.without("share")).programs(ALL)
    assert [p.stop for p in alone] == [4, 4, 1]


def test_fold(facts):
    mixed = hidden_states[[3, 1]].layer_mix(0.25, 4.0).mean
    assert [c.layers for c in program_of(facts, mixed).captures] == [(3,), (1,)]
    (folded,) = program_of(facts, mixed, rules=Rules.without("fold")).captures
    assert folded == Capture(layers=(1, 3), weights=(4.0, 0.25), segments="tokens", reduce="sum")
    (not_linear,) = program_of(facts, hidden_states[[3, 1]].layer_mean.max).captures
    assert not_linear == Capture(layers=(1, 3), segments="tokens", reduce="max")
    (kept,) = program_of(facts, hidden_states[[3, 1]].layer_max).captures
    assert kept == Capture(layers=(1, 3), fold="max")


def test_heads(facts, facts_with):
    assert not any(c.pooler for c in program_of(facts, last_hidden_state.mean).captures)
    off = Rules.without("heads")
    assert any(c.pooler for c in program_of(facts, hidden_states[1].mean, rules=off).captures)
    assert program_of(facts, hidden_states[1].mean, rules=off).stop == 4
    for state in ("absent", "untrained"):
        unusable = facts_with(pooler=state)
        assert not any(c.pooler for c in program_of(unusable, hidden_states[1].mean, rules=off).captures)


def test_the_pooler_reads_the_first_token_of_the_last_state(naive, facts):
    (capture,) = program_of(facts, pooler_output).captures
    assert capture == Capture(layers=(naive.L,), segments="windows", reduce="first", pooler=True)


# -- inputs


def limited(facts_with, limit, override=None):
    spec = SentenceEmbeddingSpec(poolings=("mean",), steps=("normalize",), max_length=limit)
    return facts_with(sentence_embedding=spec, max_length_override=override)


def test_features_are_grouped_by_what_they_see(facts_with):
    features = {"a": last_hidden_state.mean, "s": sentence_embedding, "b": hidden_states[1].mean}
    plan = make_plan(features, limited(facts_with, 20))
    assert plan.inputs == (Input(max_length=64), Input(max_length=20))
    assert plan.features_of(frozenset({0})) == ("a", "b")
    assert plan.features_of(frozenset({1})) == ("s",)
    assert plan.features_of(frozenset({0, 1})) == ("a", "s", "b")
    (only_s,) = plan.programs(frozenset({1}))
    assert [c.layers for c in only_s.captures] == [(4,)]
    assert plan.programs(frozenset()) == ()


def test_max_length_overrides_every_limit(facts_with):
    features = {"a": last_hidden_state.mean, "s": sentence_embedding}
    assert make_plan(features, limited(facts_with, 20, override=30)).inputs == (Input(max_length=30),)
    assert make_plan(features, limited(facts_with, None)).inputs == (Input(max_length=64),)
    assert make_plan(features, limited(facts_with, 1000)).inputs == (Input(max_length=64),)


@pytest.mark.parametrize("override", [0, -1, 65])
def test_a_max_length_without_positions_is_refused(facts_with, override):
    with pytest.raises(OptionError, match="1 to 64"):
        make_plan({"a": last_hidden_state.mean}, facts_with(max_length_override=override))


def test_concat_of_different_inputs_is_refused(facts_with):
    both = {"v": concat(last_hidden_state.mean, sentence_embedding)}
    with pytest.raises(FeatureError, match=r"last_hidden_state 64 and sentence_embedding 20.*max_length=20"):
        make_plan(both, limited(facts_with, 20))
    make_plan(both, limited(facts_with, 20, override=20))


def test_a_prompt_and_lower_case_are_part_of_the_input(facts_with):
    spec = SentenceEmbeddingSpec(max_length=20, lowercase=True, prompts={"q": "query: "}, include_prompt=False)
    facts = facts_with(sentence_embedding=spec)
    features = {"a": last_hidden_state.mean, "s": sentence_embedding, "q": sentence_embedding(prompt="q").normalize}
    plan = make_plan(features, facts)
    assert plan.inputs == (
        Input(max_length=64),
        Input(max_length=20, lowercase=True),
        Input(max_length=20, prompt="query: ", lowercase=True),
    )
    assert str(plan.inputs[2]) == "at most 20 tokens after the prompt 'query: ', lower-cased"
    (program,) = plan.programs(frozenset({2}))
    assert plan.segment_kinds(program) == {"after_prompt"}
    with pytest.raises(FeatureError, match=r"see different texts .*tokens after the prompt 'query: '.* of their own"):
        make_plan({"v": concat(sentence_embedding(prompt="q"), last_hidden_state.mean)}, facts)


# -- refusals and small print


def test_segment_kinds_cover_what_numpy_reads(facts):
    features = {
        "m": last_hidden_state.mean(special=False),
        "w": last_hidden_state.weighted_mean,
        "c": hidden_states[1].cls,
    }
    for rules in (Rules(), Rules.without("capture")):
        plan = make_plan(features, facts, rules=rules)
        (program,) = plan.programs(ALL)
        assert plan.segment_kinds(program) == {"content", "tokens_by_position", "cls"}
    tokens = make_plan({"t": last_hidden_state}, facts)
    assert tokens.segment_kinds(tokens.programs(ALL)[0]) == {"tokens"}


def test_an_unshared_program_needs_only_its_own_segments(facts):
    features = {"m": last_hidden_state.mean(special=False), "c": hidden_states[1].cls}
    plan = make_plan(features, facts, rules=Rules.without("share"))
    assert [plan.segment_kinds(p) for p in plan.programs(ALL)] == [{"content"}, {"cls"}]


def test_schemas_stand_in_output_order_with_scales_beside(facts):
    plan = make_plan({"q": last_hidden_state.astype("int8"), "v": pooler_output}, facts)
    assert [s.name for s in plan.schemas] == ["q", "q.scale", "v"]


def test_two_results_of_one_name_are_refused(facts):
    with pytest.raises(FeatureError, match=r"'q\.scale'"):
        make_plan({"q": pooler_output.astype("int8"), "q.scale": pooler_output}, facts)


def test_nothing_asked_is_refused(facts):
    with pytest.raises(FeatureError):
        make_plan({}, facts)


def test_poolers_that_cannot_be_had_are_refused(facts_with):
    with pytest.raises(UntrainedPoolerError, match="no pooler"):
        make_plan({"p": pooler_output}, facts_with(pooler="absent"))
    with pytest.raises(UntrainedPoolerError, match="never trained"):
        make_plan({"p": pooler_output}, facts_with(pooler="untrained"))
    make_plan({"p": pooler_output}, facts_with(pooler="untrained", use_untrained_pooler=True))
    headless = dataclasses.replace(facts_with().spec, pooler=False)
    with pytest.raises(UntrainedPoolerError):
        make_plan({"p": pooler_output}, facts_with(spec=headless))


def test_rules_by_name():
    assert Rules.names() == ("stop", "capture", "rows", "share", "fold", "heads", "repeat")
    assert Rules.without("rows", "fold") == Rules(rows=False, fold=False)
    with pytest.raises(OptionError, match="stop, capture, rows, share, fold, heads, repeat"):
        Rules.without("speed")
