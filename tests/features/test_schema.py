from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import FeatureError
from layertap.features.concat import concat
from layertap.features.plan import make_plan
from layertap.features.rules import Rules
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.features.vectors import unit_counts
from layertap.records import FeatureSchema


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_schema_is_what_comes_out(naive, facts, data):
    drawn = data.draw(st.lists(naive.expressions(), min_size=1, max_size=3))
    rules = Rules.without(*data.draw(st.lists(st.sampled_from(Rules.names()), unique=True)))
    plan = make_plan({f"f{i}": e for i, e in enumerate(drawn)}, facts, rules=rules)
    batch = naive.batch(data.draw(naive.batches()))
    results = naive.run(plan, batch)
    assert list(results) == [schema.name for schema in plan.schemas]
    for schema in plan.schemas:
        name = schema.name.removesuffix(".scale")
        unit = plan.resolved[name].form.unit
        kinds = {"tokens", "content", "words", "spans"}
        counts = unit_counts(plan, name, naive.segments(batch, frozenset(kinds)))
        assert schema.ragged == (unit != "text") == (counts is not None)
        rows = len(batch) if counts is None else counts.sum()
        assert results[schema.name].shape == (rows, *schema.shape)
        assert results[schema.name].dtype == schema.dtype


def schemas(facts, feature):
    return make_plan({"v": feature}, facts).schemas


@pytest.mark.parametrize(
    ("feature", "dtype", "shape", "ragged"),
    [
        (last_hidden_state, "float32", (16,), True),
        (hidden_states[:], "float32", (5, 16), True),
        (hidden_states[[3]].mean, "float32", (1, 16), False),
        (hidden_states[1:4].layer_concat.mean, "float32", (48,), False),
        (hidden_states[1:4].layer_concat.tokens.truncate(20), "float32", (20,), True),
        (pooler_output, "float32", (16,), False),
        (sentence_embedding, "float32", (16,), False),
        (concat(pooler_output, last_hidden_state.cls.truncate(3)), "float32", (19,), False),
        (concat(last_hidden_state, hidden_states[0]), "float32", (32,), True),
        (pooler_output.astype("float16"), "float16", (16,), False),
        (hidden_states[:].astype("binary"), "uint8", (5, 2), True),
    ],
    ids=str,
)
def test_types(facts, feature, dtype, shape, ragged):
    assert schemas(facts, feature) == (FeatureSchema(name="v", dtype=dtype, shape=shape, ragged=ragged),)


@pytest.mark.parametrize(
    ("feature", "scale", "ragged"),
    [(pooler_output, (), False), (last_hidden_state, (), True), (hidden_states[:].mean, (5,), False)],
    ids=str,
)
def test_int8_has_a_scale(facts, feature, scale, ragged):
    values, scales = schemas(facts, feature.astype("int8"))
    assert values.dtype == "int8"
    assert scales == FeatureSchema(name="v.scale", dtype="float32", shape=scale, ragged=ragged)


@pytest.mark.parametrize(
    ("feature", "answer"),
    [
        (pooler_output.truncate(17), "use 1 to 16"),
        (concat(pooler_output, pooler_output).truncate(33), "use 1 to 32"),
        (pooler_output.truncate(12).astype("binary"), r"divisible by 8.*12; \.truncate\(8\)"),
        (pooler_output.truncate(7).astype("binary"), r"divisible by 8.*has 7$"),
        (hidden_states[:].layer_mix(1, 2).mean, "2 weights for 5 layers"),
        (hidden_states[[1, 2]].layer_mix(1, 2, 3), "3 weights for 2 layers"),
        (hidden_states[5].mean, r"0 \(embedding output\) to 4 \(last\), or -1 to -5"),
        (hidden_states[-6].mean, "out of range"),
        (hidden_states[:9].mean, "from -5 to 5"),
        (concat(pooler_output, hidden_states[7].mean), "out of range"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(facts, feature, answer):
    with pytest.raises(FeatureError, match=answer):
        schemas(facts, feature)
