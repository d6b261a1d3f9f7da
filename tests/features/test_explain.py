from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import OptionError
from layertap.features.cost import block_flop, estimate, runs, saving
from layertap.features.explain import explain
from layertap.features.plan import Input, make_plan
from layertap.features.rules import Rules
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.models.sentence import SentenceEmbeddingSpec
from layertap.words import scaled


def explained(facts, features, *, lengths=10.0, num_records=1000, rules=None):
    plan = make_plan(features, facts, rules=rules or Rules())
    return explain(plan, facts, lengths=lengths, num_records=num_records, precision="float32")


def test_a_block_costs_its_products(facts):
    h, f, n = 16, 32, 10
    products = 4 * n * 2 * h * h + 2 * n * 2 * h * f  # q, k, v, out; up, down
    attention = 2 * 2 * n * n * h
    assert block_flop(facts.spec, n, n) == products + attention
    kept = 2 * n * 2 * h * h + 2 * 2 * h * h + 2 * 2 * h * f + 2 * 2 * n * h
    assert block_flop(facts.spec, n, 1) == kept


def test_estimates(facts):
    plan = make_plan({"v": hidden_states[2].mean}, facts)
    cost = estimate(plan, facts, [10.0])
    assert cost.flop == 2 * block_flop(facts.spec, 10, 10) + 10 * 16
    assert cost.handed_over == cost.result == 4 * 16
    ragged = make_plan({"v": hidden_states[[1, 2]].astype("int8")}, facts)
    assert estimate(ragged, facts, [10.0, 100.0]).result == (2 * 16 + 2 * 4) * (10 + 64) / 2


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_rule_costs_more_than_it_saves(naive, facts, data):
    drawn = data.draw(st.lists(naive.expressions(), min_size=1, max_size=3))
    plan = make_plan({f"f{i}": e for i, e in enumerate(drawn)}, facts)
    counts = data.draw(st.lists(st.floats(1, 80), min_size=1, max_size=3))
    for rule in ("stop", "rows", "share", "heads"):
        saved = saving(plan, facts, counts, rule)
        assert saved.flop >= -1e-6
        assert saved.handed_over >= -1e-6


def test_which_inputs_run_together():
    inputs = (Input(max_length=64), Input(max_length=20))
    both, long, short = runs(inputs, [10, 20, 50, 100], None)
    assert (both.inputs, both.lengths, both.share) == (frozenset({0, 1}), (10, 20), 0.5)
    assert (long.inputs, long.lengths) == (frozenset({0}), (50, 64))
    assert (short.inputs, short.lengths) == (frozenset({1}), (20, 20))


def test_what_explain_says(facts):
    text = explained(facts, {"v": hidden_states[2].cls, "w": hidden_states[[0, 2]].layer_max.cls})
    assert "4 blocks, hidden size 16, float32" in text
    assert "blocks           2 of 4" in text
    assert "block 2 at 1 token a text" in text
    assert "layers 0, 2  the CLS token, reduced in the backend" in text
    assert "for 1,000 texts" in text
    for rule in Rules.names():
        assert f"\n  {rule}  " in text
    assert all(line == line.rstrip() and len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize(
    ("features", "rule", "saved"),
    [
        ({"v": hidden_states[1].mean}, "stop", "FLOP"),
        ({"v": last_hidden_state.mean}, "capture", "handed over"),
        ({"v": last_hidden_state.cls}, "rows", "FLOP"),
        ({"v": last_hidden_state.mean, "w": last_hidden_state.max}, "share", "FLOP"),
        ({"v": hidden_states[:].layer_mean.mean, "w": hidden_states[:].mean}, "fold", "FLOP"),
        ({"v": hidden_states[1].mean}, "heads", "FLOP"),
    ],
)
def test_each_rule_says_what_it_saves(facts, features, rule, saved):
    (line,) = [line for line in explained(facts, features).splitlines() if line.startswith(f"  {rule}  ")]
    assert "saves" in line
    assert saved in line
    off = explained(facts, features, rules=Rules.without(rule))
    (line,) = [line for line in off.splitlines() if line.startswith(f"  {rule}  ")]
    assert line.endswith("off")


def test_repeats_of_the_sample_are_forecast(facts):
    plan = make_plan({"v": hidden_states[1].mean}, facts)
    forecast = {"lengths": [10.0, 10.0], "num_records": 2, "precision": "float32"}
    lines = [
        next(line for line in explain(plan, facts, repeated=share, **forecast).splitlines() if "  repeat  " in line)
        for share in (0.5, 0.0)
    ]
    half = scaled(estimate(plan, facts, [10.0]).flop / 2, ("FLOP", "kFLOP", "MFLOP"))
    assert [line.split("chunk")[1].strip() for line in lines] == [f"saves {half} a text", "nothing to save here"]


def test_runs_are_told_apart(facts_with):
    facts = facts_with(sentence_embedding=SentenceEmbeddingSpec(max_length=20))
    text = explained(facts, {"s": sentence_embedding, "v": pooler_output}, lengths=[10, 50])
    assert "run over 50% of texts, 10 tokens on average, for s, v" in text
    assert "run over 50% of texts, 20 tokens on average, for s\n" in text
    assert "run over 50% of texts, 50 tokens on average, for v\n" in text
    alone = explained(facts, {"s": sentence_embedding, "v": pooler_output}, rules=Rules.without("share"))
    assert "average, for s\n" in alone
    assert "average, for v\n" in alone


def test_an_unknown_number_of_texts(facts):
    assert "texts\n" not in explained(facts, {"v": last_hidden_state}, num_records=None)


def test_captures_before_the_final_norm_are_told_apart(facts):
    text = explained(facts, {"n": last_hidden_state.mean, "u": last_hidden_state.unnormed.mean})
    assert "layer 4  sum of all tokens, reduced in the backend" in text
    assert "layer 4  before the final norm, sum of all tokens, reduced in the backend" in text


@pytest.mark.parametrize("lengths", [[], [0], 0.5])
def test_lengths_that_are_none(facts, lengths):
    with pytest.raises(OptionError, match="token counts"):
        explained(facts, {"v": pooler_output}, lengths=lengths)
