"""`attentions[...]`: the language, its types, and plans that give what is asked whatever rules are off."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap import attentions, concat, hidden_states, last_hidden_state, parse
from layertap.errors import FeatureError, FeatureSyntaxError
from layertap.features.cost import program_flop
from layertap.features.explain import explain
from layertap.features.expr import Expr, Heads, HeadsMean, LayerFold
from layertap.features.indexing import LayerSlice
from layertap.features.plan import make_plan
from layertap.features.program import Capture
from layertap.features.rules import Rules
from layertap.features.sources import AttentionLayers

L, A = 4, 6


@pytest.fixture(scope="module")
def model(facts_with, facts):
    return facts_with(spec=replace(facts.spec, num_attention_heads=A, hidden_size=24))


@st.composite
def features(draw) -> Expr:
    """Attentions that the model of this file can give."""
    one = st.integers(-L, L - 1)
    several = st.lists(one, min_size=1, max_size=4, unique_by=lambda i: i % L)
    bound = st.none() | st.integers(-L, L)
    ranges = st.builds(slice, bound, bound, st.none() | st.sampled_from([1, 2, -1])).filter(lambda s: range(L)[s])
    e: Expr = attentions[draw(one | several | ranges)]
    if e.form.layers and draw(st.booleans()):
        e = e.layer_mean
    if draw(st.booleans()):
        e = e.heads(*draw(st.lists(st.integers(0, A - 1), min_size=1, max_size=A, unique=True)))
    if draw(st.booleans()):
        e = e.heads_mean
    return e.astype("float16") if draw(st.booleans()) else e


# -- a backend whose attention is random numbers, and what is expected of it


def maps_of(ids: np.ndarray) -> np.ndarray:
    """float32 [L, A, t, t]"""
    rng = np.random.default_rng([7, len(ids), *(int(i) for i in ids)])
    return rng.random((L, A, len(ids), len(ids))).astype(np.float32)


def backend_of(naive):
    class Backend(naive.Backend):
        def run(self, program, batch, segments):
            states = tuple(capture for capture in program.captures if capture.attention is None)
            found = super().run(replace(program, captures=states), batch, segments)
            self.ran[-1] = (program.stop, self.ran[-1][1], len(program.captures))
            texts = np.split(batch.input_ids, batch.cu_seqlens[1:-1])
            for capture in program.captures:
                if capture.attention is not None:
                    assert len(capture.layers) == 1
                    assert 1 <= capture.layers[0] <= program.stop
                    own = [maps_of(ids)[capture.layers[0] - 1] for ids in texts]
                    own = own if capture.heads is None else [maps[list(capture.heads)] for maps in own]
                    own = [maps.mean(axis=0) for maps in own] if capture.attention == "mean" else own
                    found[capture] = np.concatenate([maps.ravel() for maps in own])
            return found

    return Backend()


def oracle(e: Expr, ids) -> np.ndarray:
    """[L, A, t, t] or fewer axes, float64."""
    match e:
        case AttentionLayers(selection=selection):
            key = list(selection) if isinstance(selection, tuple) else selection
            key = slice(key.start, key.stop, key.step) if isinstance(key, LayerSlice) else key
            return maps_of(np.array(ids)).astype(np.float64)[key]
        case LayerFold():
            return oracle(e.of, ids).mean(axis=0)
        case Heads(selection=heads):
            return oracle(e.of, ids)[..., list(heads), :, :]
        case HeadsMean():
            return oracle(e.of, ids).mean(axis=-3)
        case _:
            return oracle(e.of, ids)


RULES = st.builds(Rules, **{name: st.booleans() for name in Rules.names()})


@given(data=st.data(), rules=RULES)
@settings(max_examples=80, deadline=None)
def test_values_are_those_of_the_maps_whatever_rules_are_off(data, rules, model, naive):
    asked = {f"f{i}": e for i, e in enumerate(data.draw(st.lists(features(), min_size=1, max_size=3)))}
    asked["v"] = hidden_states[2].mean
    plan = make_plan(asked, model, rules=rules)
    texts = data.draw(naive.batches())
    found = naive.run(plan, naive.batch(texts), backend_of(naive))
    schemas = {schema.name: schema for schema in plan.schemas}
    for name, e in asked.items():
        if name == "v":
            continue
        schema = schemas[name]
        assert schema.maps
        assert not schema.ragged
        expected = [oracle(e, ids) for ids, _ in texts]
        assert all(value.shape[:-2] == schema.shape for value in expected)
        half = schema.dtype == "float16"
        assert found[name].dtype == schema.dtype == ("float16" if str(e).endswith("astype(float16)") else "float32")
        flat = np.concatenate([value.ravel() for value in expected])
        np.testing.assert_allclose(found[name], flat, rtol=0, atol=1e-3 if half else 1e-6)


@given(features())
def test_canonical_text_and_pickle(e):
    assert parse(str(e)) == e
    assert hash(parse(str(e))) == hash(e)
    assert pickle.loads(pickle.dumps(e)) == e


def test_the_source_itself():
    assert pickle.loads(pickle.dumps(attentions)) is attentions
    assert repr(attentions) == "attentions"
    for use in (bool, np.asarray, list, lambda source: 1 in source):
        with pytest.raises((FeatureError, TypeError)):
            use(attentions)
    assert str(parse("attentions[ -1 ].heads( 3,0 ).heads_mean().astype('float16')")) == (
        "attentions[-1].heads(3, 0).heads_mean.astype(float16)"
    )


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("attentions", 10, "attentions needs its layers"),
        ("attentions()", 10, "no parentheses"),
        ("attention[0]", 0, r"write attentions\[i\] for block i, counted from 0"),
        ("attention_weights", 0, r"write attentions\[i\]"),
        ("output_attentions", 0, r"attentions\[:\] for all"),
        ("last_hidden_state.attentions", 18, r"write attentions\[0\], without"),
        ("heads(0)", 0, r"as in attentions\[0\].heads"),
        ("attentions[0].mean", 14, "maps, no vectors; what can follow: heads, heads_mean, astype"),
        ("attentions[0].words(mean)", 14, "maps, no vectors"),
        ("attentions[0].tokens", 14, "maps, no vectors"),
        ("attentions[0].normalize", 14, "maps, no vectors"),
        ("attentions[:].layer_sum", 14, "only the mean folds layers; what can follow: layer_mean"),
        ("attentions[:].layer_mix(1, 2)", 14, "only the mean folds layers"),
        ("attentions[0].layer_mean", 14, r"it is one layer; select several, as in attentions\[-4:\]"),
        ("attentions[:].heads_mean.layer_mean", 25, r"write attentions\[:\].layer_mean.heads_mean"),
        ("attentions[0].heads_mean.heads(1)", 25, r"write attentions\[0\].heads\(1\).heads_mean"),
        ("attentions[0].heads(1).heads(0)", 23, "only one step on heads"),
        ("attentions[0].heads", 14, r"heads needs its argument, as in heads\(0, 3\)"),
        ("attentions[0].heads()", 14, "selects nothing"),
        ("attentions[0].heads(1, 1)", 14, "head 1 more than once"),
        ("attentions[0].heads(-1)", 14, "whole numbers, 0 the first head"),
        ("attentions[0].heads(0.5)", 14, "whole numbers"),
        ("attentions[0].heads(a)", 20, "expected a number"),
        ("attentions[0].head(1)", 14, "write heads"),
        ("attentions[0][0]", 14, r"no batch axis, and heads are selected as in attentions\[0\].heads"),
        ("attentions[0][:, 0]", 14, "no batch axis"),
        ("attentions[0, 3]", 11, r"write attentions\[\[0, 3\]\]"),
        ("attentions[:, 0]", 11, r"as in attentions\[:\].heads"),
        ("attentions[[]]", 11, "selects nothing"),
        ("attentions[[1, 1]]", 11, "layer 1 more than once"),
        ("attentions[0].astype(int8)", 14, r"stored with astype\(float16\)"),
        ("attentions[0].astype(binary)", 14, r"stored with astype\(float16\)"),
        ("concat(attentions[0], attentions[1])", 0, "no vectors to join"),
        ("last_hidden_state.heads_mean", 18, "only attentions have heads"),
        ("last_hidden_state.mean.heads(1)", 23, "only attentions have heads"),
    ],
)
def test_refused_with_what_works(text, column, why):
    with pytest.raises(FeatureSyntaxError, match=why) as caught:
        parse(text)
    assert caught.value.position == column


def test_refused_in_python():
    with pytest.raises(FeatureError, match="only attentions have heads"):
        _ = last_hidden_state.heads_mean
    with pytest.raises(FeatureError, match="attentions needs its layers"):
        concat(attentions, last_hidden_state)
    with pytest.raises(FeatureError, match="whole numbers"):
        attentions[0].heads(True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("attentions[4]", r"4 is out of range; this model's layers are 0 \(first block\) to 3 \(last\), or -1 to -4"),
        ("attentions[-5]", "-5 is out of range"),
        ("attentions[[0, 4]]", "4 is out of range"),
        ("attentions[:5]", "5 is out of range; this model has 4 blocks with attentions, and slice bounds go from -4"),
        ("attentions[2:1]", "selects no layer"),
        ("attentions[[0, -4]]", "layer 0 more than once"),
        ("attentions[0].heads(1, 6)", r"heads\(1, 6\): 6 is out of range; this model's heads are 0 to 5"),
    ],
)
def test_out_of_range_is_refused_with_the_range(text, why, model):
    with pytest.raises(FeatureError, match=why):
        make_plan({"a": parse(text)}, model)


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("attentions[0]", (A,), "float32"),
        ("attentions[-1].heads(5, 0)", (2,), "float32"),
        ("attentions[1].heads_mean", (), "float32"),
        ("attentions[:]", (L, A), "float32"),
        ("attentions[[2]]", (1, A), "float32"),
        ("attentions[:2].heads(1).heads_mean", (2,), "float32"),
        ("attentions[:].layer_mean.heads_mean.astype(float16)", (), "float16"),
    ],
)
def test_schema(text, shape, dtype, model):
    (schema,) = make_plan({"a": parse(text)}, model).schemas
    assert (schema.shape, schema.dtype, schema.maps, schema.ragged) == (shape, dtype, True, False)


def test_only_the_blocks_asked_for(model):
    plan = make_plan({"a": attentions[1].heads(3), "b": attentions[0].heads_mean}, model)
    (program,) = plan.programs(frozenset([0]))
    assert program.stop == 2
    assert program.captures == (
        Capture(layers=(2,), attention="heads", heads=(3,)),
        Capture(layers=(1,), attention="mean"),
    )
    # with few rows at the top the maps would lack queries
    plan = make_plan({"a": attentions[-1], "v": last_hidden_state.cls}, model)
    (program,) = plan.programs(frozenset([0]))
    assert not program.top_rows_only
    # below the top they are no reason against it
    plan = make_plan({"a": attentions[0], "v": last_hidden_state.cls}, model)
    (program,) = plan.programs(frozenset([0]))
    assert program.top_rows_only


def test_explain_counts_squares(model):
    plan = make_plan({"a": attentions[:2].heads(1, 4), "m": attentions[0].heads_mean}, model)
    text = explain(plan, model, lengths=[10, 30, 1000], num_records=2, precision="float32")
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "float32 [2 layers, 2 heads, T, T] a text" in text
    assert "float32 [T, T] a text" in text
    mean_square = (10**2 + 30**2 + 64**2) / 3  # 64 is the model's limit
    assert f"{4 * 4 * mean_square / 1000:.1f} kB a text" in text
    assert f"{4 * mean_square / 1000:.2f} kB a text" in text
    assert "blocks 1-2  attentions of heads 1, 4, handed over" in text
    assert "block 1     attentions, the mean of all heads, handed over" in text
    assert lines["stop"].split("saves")[1]
    (program,) = plan.programs(frozenset([0]))
    without = replace(program, captures=(Capture(layers=(2,)),))
    extra = program_flop(program, model.spec, 10) - program_flop(without, model.spec, 10)
    assert extra == 2 * 100 * 4 * (2 + 2 + A)
