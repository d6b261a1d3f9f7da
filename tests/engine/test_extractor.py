"""`Extractor` from end to end on the torch backend."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap import hidden_states, last_hidden_state, pooler_output
from layertap.engine.extractor import Extractor
from layertap.engine.opening import open_reference
from layertap.engine.options import Runtime
from layertap.errors import (
    BackendError,
    ConfigError,
    FeatureError,
    InputError,
    ModelNotFoundError,
    OptionError,
    UntrainedPoolerError,
    UsageError,
)
from layertap.features.rules import Rules
from layertap.records import Ragged, Record

TEXTS = ["the film was good", "", "hello world", "the river bank " * 30, "funny"]
H, STATES, LIMIT = 32, 4, 64


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        ("last_hidden_state.mean", (H,)),
        ("last_hidden_state[:, 0]", (H,)),
        ("pooler_output", (H,)),
        ("hidden_states[:].mean", (STATES, H)),
        ("hidden_states[[1, 3]].layer_concat.max", (2 * H,)),
        ("hidden_states[-2:].layer_mean.mean.normalize.truncate(8)", (8,)),
        ("concat(pooler_output, last_hidden_state.cls)", (2 * H,)),
        ("last_hidden_state.mean.astype(float16)", (H,)),
        ("last_hidden_state.mean.astype(binary)", (H // 8,)),
    ],
)
def test_shapes_of_dense_features(extractor, feature, shape):
    (schema,) = extractor.schema(feature)
    found = extractor.extract(TEXTS, feature)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.dtype(schema.dtype), (5, *shape))
    assert schema.shape == shape
    one = extractor.extract(TEXTS[0], feature)
    assert one.shape == shape
    none = extractor.extract([], feature)
    assert (none.dtype, none.shape) == (found.dtype, (0, *shape))


@pytest.mark.parametrize(("feature", "layers"), [("hidden_states[2]", None), ("hidden_states[:]", STATES)])
def test_shapes_of_ragged_features(extractor, feature, layers):
    lengths = [6, 2, 4, LIMIT, 3]
    found = extractor.extract(TEXTS, feature)
    assert isinstance(found, Ragged)
    assert [rows.shape for rows in found] == [((n, layers, H) if layers else (n, H)) for n in lengths]
    assert extractor.extract(TEXTS[0], feature).shape == ((6, layers, H) if layers else (6, H))
    none = extractor.extract([], feature)
    assert isinstance(none, Ragged)
    assert len(none) == 0
    assert none.values.shape == ((0, layers, H) if layers else (0, H))
    assert none.values.dtype == found.values.dtype


def test_one_feature_in_one_array_out_and_a_mapping_for_several(extractor, assert_same):
    one = extractor.extract(TEXTS, last_hidden_state.mean)
    assert isinstance(one, np.ndarray)
    assert_same(one, extractor.extract(TEXTS, "last_hidden_state.mean"))
    listed = extractor.extract(TEXTS, ["v = last_hidden_state.mean", pooler_output])
    assert list(listed) == ["v", "pooler_output"]
    assert_same(listed["v"], one)
    assert list(extractor.extract(TEXTS, [last_hidden_state.mean])) == ["last_hidden_state.mean"]
    mapped = extractor.extract(TEXTS, {"b": pooler_output, "a": "last_hidden_state.mean"})
    assert list(mapped) == ["b", "a"]
    assert_same(mapped["a"], one)
    single = extractor.extract(TEXTS[0], {"a": last_hidden_state.mean})
    assert list(single) == ["a"]
    assert single["a"].shape == (H,)


def test_int8_comes_with_its_scale(extractor):
    exact = extractor.extract(TEXTS, "last_hidden_state.mean")
    found = extractor.extract(TEXTS, {"v": "last_hidden_state.mean.astype(int8)"})
    assert list(found) == ["v", "v.scale"]
    assert (found["v"].dtype, found["v.scale"].dtype, found["v.scale"].shape) == (np.int8, np.float32, (5,))
    assert np.abs(found["v"] * found["v.scale"][:, None] - exact).max() <= found["v.scale"].max() / 2 * 1.001
    alone = extractor.extract(TEXTS, "last_hidden_state.mean.astype(int8)")
    assert list(alone) == ["last_hidden_state.mean.astype(int8)", "last_hidden_state.mean.astype(int8).scale"]
    one = extractor.extract(TEXTS[0], {"v": "last_hidden_state.mean.astype(int8)"})
    assert one["v"].shape == (H,)
    assert one["v.scale"].shape == ()
    ragged = extractor.extract(TEXTS, {"v": "hidden_states[:].astype(int8)"})
    assert ragged["v"].values.shape[:2] == ragged["v.scale"].values.shape


def test_results_belong_to_their_texts(extractor, random_texts):
    texts = random_texts(150)
    together = extractor.extract(texts, "hidden_states[2].mean")
    for i in range(0, 150, 13):
        np.testing.assert_allclose(together[i], extractor.extract(texts[i], "hidden_states[2].mean"), atol=1e-5)


FEATURES = [
    "last_hidden_state.mean",
    "last_hidden_state",
    "hidden_states[0].mean",
    "hidden_states[1].last",
    "hidden_states[-2:].layer_mean.mean",
    "hidden_states[:].layer_max.max",
    "hidden_states[:].layer_max.mean(special=False)",
    "hidden_states[1:3].layer_mix(0.25, -2).first(special=False)",
    "hidden_states[[3, 0]].layer_concat.min(special=False)",
    "hidden_states[:].weighted_mean(special=False)",
    "hidden_states[:].layer_sum.weighted_mean",
    "last_hidden_state.mean_sqrt_len.normalize",
    "last_hidden_state.cls",
    "last_hidden_state.last(special=False)",
    "concat(pooler_output, hidden_states[2].cls)",
    "pooler_output",
    "hidden_states[:].layer_mean",
]


@given(
    chosen=st.lists(st.sampled_from(FEATURES), min_size=1, max_size=5, unique=True),
    off=st.sets(st.sampled_from(Rules.names())),
    seed=st.integers(0, 99),
    batch_tokens=st.integers(1, 300),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_rule_gives_what_the_plain_path_gives(
    bert_folder, random_texts, assert_same, chosen, off, seed, batch_tokens
):
    texts = random_texts(7, seed=seed)
    plain = Extractor.from_pretrained(bert_folder, rules=Rules.without(*Rules.names()))
    ruled = Extractor.from_pretrained(bert_folder, rules=Rules.without(*off), batch_tokens=batch_tokens)
    assert_same(ruled.extract(texts, chosen), plain.extract(texts, chosen), 3e-5)


@pytest.mark.parametrize("rule", Rules.names())
def test_each_rule_alone_changes_nothing(bert_folder, extractor, random_texts, assert_same, rule):
    texts = random_texts(20)
    without = Extractor.from_pretrained(bert_folder, rules=Rules.without(rule))
    assert_same(without.extract(texts, FEATURES), extractor.extract(texts, FEATURES), 3e-5)


def test_empty_texts_only(extractor):
    # a top block of which no row is wanted
    found = extractor.extract(["", ""], "hidden_states[2].first(special=False)")
    assert found.tolist() == np.zeros((2, H)).tolist()
    assert extractor.extract("", "last_hidden_state.mean(special=False)").tolist() == [0.0] * H
    assert extractor.extract("", "last_hidden_state").shape == (2, H)
    assert extractor.extract("", "last_hidden_state.mean").any()


def test_two_limits_in_one_run(sentence_extractor, random_texts, assert_same):
    texts = [*random_texts(30, longest=9), "good " * 40, "the film " * 60]
    both = sentence_extractor.extract(texts, {"s": "sentence_embedding", "m": "last_hidden_state.mean"})
    assert_same(both["s"], sentence_extractor.extract(texts, "sentence_embedding"))
    assert_same(both["m"], sentence_extractor.extract(texts, "last_hidden_state.mean"))
    np.testing.assert_allclose(np.linalg.norm(both["s"], axis=1), 1, rtol=1e-5)


def test_a_text_that_two_inputs_see_alike_runs_once(sentence_extractor, random_texts):
    short = random_texts(20, longest=9)
    stream = sentence_extractor.stream([*short, "good " * 40], ["sentence_embedding", "last_hidden_state.mean"])
    list(stream)
    lengths = [len(text) for text in sentence_extractor.tokenizer.encode(short)]
    assert max(lengths) <= 12
    assert stream.summary.tokens == sum(lengths) + 12 + 42
    assert stream.summary.records == 21


def test_the_default_feature(extractor, sentence_extractor, assert_same):
    assert_same(extractor.extract(TEXTS), extractor.extract(TEXTS, last_hidden_state.mean))
    assert_same(sentence_extractor.extract(TEXTS), sentence_extractor.extract(TEXTS, "sentence_embedding"))


def test_max_length_cuts_every_feature(sentence_folder, assert_same):
    short = Extractor.from_pretrained(sentence_folder, max_length=5)
    found = short.extract("the film was good hello world", ["sentence_embedding", "hidden_states[1]"])
    assert found["hidden_states[1]"].shape == (5, H)
    expected = Extractor.from_pretrained(sentence_folder).extract(
        "the film was", ["sentence_embedding", "hidden_states[1]"]
    )
    assert_same(found, expected)


def test_streams_give_what_extract_gives(extractor, random_texts, assert_same):
    texts = random_texts(400)
    features = {"m": last_hidden_state.mean, "t": hidden_states[1]}
    expected = extractor.extract(texts, features)
    records = (Record(row=i, text=text, id=f"r{i}", columns={"n": i}) for i, text in enumerate(texts))
    small = Runtime(batch_tokens=100)
    batches = list(
        Extractor.of(open_reference(extractor.reference), extractor.semantics, small).stream(records, features)
    )
    assert len(batches) > 1
    assert [record.id for batch in batches for record in batch.records] == [f"r{i}" for i in range(400)]
    assert [record.columns["n"] for batch in batches for record in batch.records] == list(range(400))
    assert_same(np.concatenate([batch.features["m"] for batch in batches]), expected["m"])
    assert_same(np.concatenate([batch.features["t"].values for batch in batches]), expected["t"].values)


def test_plain_texts_in_a_stream_are_numbered(extractor):
    (batch,) = extractor.stream(iter(TEXTS), "pooler_output")
    assert [(record.row, record.text) for record in batch.records] == list(enumerate(TEXTS))


def test_texts_may_come_in_any_iterable(extractor, assert_same):
    expected = extractor.extract(TEXTS, "pooler_output")
    for texts in (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), dict.fromkeys(TEXTS).keys()):
        assert_same(extractor.extract(texts, "pooler_output"), expected)


@pytest.mark.parametrize("texts", [None, 5, b"the film", {"text": "the film"}])
def test_what_is_no_list_of_texts_is_refused(extractor, texts):
    with pytest.raises(UsageError, match=f"found {type(texts).__name__}"):
        extractor.extract(texts, "pooler_output")
    with pytest.raises(UsageError, match=f"found {type(texts).__name__}"):
        extractor.stream(texts, "pooler_output")


@pytest.mark.parametrize("texts", [{"a", "b"}, frozenset({"a"}), np.array("a")])
def test_texts_without_an_order_or_an_axis_are_refused(extractor, texts):
    with pytest.raises(UsageError, match="texts: expected a list of texts, found"):
        extractor.extract(texts, "pooler_output")


@pytest.mark.parametrize("device", [5, None, object(), "tpu"])
def test_a_device_is_a_text(bert_folder, device):
    with pytest.raises(OptionError, match="device"):
        Extractor.from_pretrained(bert_folder, device=device)


def test_one_text_is_no_stream(extractor):
    with pytest.raises(UsageError, match="expected a list of texts, found str"):
        extractor.stream("the film", "pooler_output")


@pytest.mark.parametrize("item", [None, 5, b"the film", float("nan"), ["the", 3], ("the", "film", "was")])
def test_what_is_no_text_is_refused(extractor, item):
    with pytest.raises(InputError, match=r"text 1 is .*; expected a str, a pair"):
        extractor.extract(["the film", item], "pooler_output")


@pytest.mark.parametrize("features", [[], {}, "last_hidden_stat", "hidden_states[9].mean", 7, "sentence_embedding"])
def test_features_that_this_model_lacks_are_refused_before_anything_runs(extractor, features):
    with pytest.raises(UsageError):
        extractor.extract(TEXTS, features)
    with pytest.raises(UsageError):
        extractor.stream(TEXTS, features)


def test_lone_surrogates_run_as_replacement_characters(roberta_folder, assert_same):
    extractor = Extractor.from_pretrained(roberta_folder)
    assert_same(
        extractor.extract(["good \ud83d", "a"], "last_hidden_state.mean"),
        extractor.extract(["good \ufffd", "a"], "last_hidden_state.mean"),
    )


def test_a_text_of_ten_megabytes_is_cut(extractor, assert_same):
    long = "the film was good " * 580_000
    assert len(long) > 10**7
    found = extractor.extract([long, "hello"], "last_hidden_state.mean")
    assert_same(found[0], extractor.extract("the film was good " * 40, "last_hidden_state.mean"))


def test_padding_tokens_typed_in_roberta_texts(roberta_folder, assert_same):
    extractor = Extractor.from_pretrained(roberta_folder, batch_tokens=100)
    texts = ["good <pad> film <pad><pad> world", "<pad>", "<pad> " * 70, "good"]
    together = extractor.extract(texts, "hidden_states[:]")
    for i, text in enumerate(texts):
        assert_same(together[i], extractor.extract(text, "hidden_states[:]"))
    assert together[2].shape[0] == extractor.facts.max_length == 62


def test_an_absent_pooler_is_refused_and_an_untrained_one_is_asked_for(tmp_path, make_checkpoint, roberta_folder):
    with pytest.raises(UntrainedPoolerError, match="the checkpoint has no pooler"):
        Extractor.from_pretrained(roberta_folder).extract("a", "pooler_output")
    folder = make_checkpoint(tmp_path / "m", pooler="untrained")
    with pytest.raises(UntrainedPoolerError, match="never trained"):
        Extractor.from_pretrained(folder).extract("a", "pooler_output")
    assert Extractor.from_pretrained(folder, untrained_pooler="use").extract("a", "pooler_output").shape == (H,)


def test_an_extractor_pickles_by_reference(bert_folder, assert_same):
    extractor = Extractor.from_pretrained(
        bert_folder, max_length=9, batch_tokens=50, rules=Rules.without("rows"), precision="bfloat16"
    )
    expected = extractor.extract(TEXTS, FEATURES)
    data = pickle.dumps(extractor)
    assert len(data) < 2000, "weights do not travel"
    again = pickle.loads(data)
    assert (again.reference, again.semantics, again.runtime) == (
        extractor.reference,
        extractor.semantics,
        extractor.runtime,
    )
    assert_same(again.extract(TEXTS, FEATURES), expected)


def test_threads_share_an_extractor(bert_folder, random_texts, assert_same):
    extractor = Extractor.from_pretrained(bert_folder)
    jobs = [(random_texts(60, seed=seed), FEATURES[seed::3]) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: extractor.extract(*job), jobs))
    for job, found in zip(jobs, together, strict=True):
        assert_same(found, extractor.extract(*job), 0)


def test_the_same_call_gives_the_same_bytes(extractor, random_texts, assert_same):
    texts = random_texts(100)
    assert_same(extractor.extract(texts, FEATURES), extractor.extract(texts, FEATURES), 0)


def test_provenance_is_what_results_depend_on(bert_folder, sentence_folder):
    one = Extractor.from_pretrained(bert_folder, batch_tokens=50)
    found = one.provenance({"v": last_hidden_state.mean})
    assert found == Extractor.from_pretrained(bert_folder, rules=Rules.without("rows")).provenance(
        {"v": "last_hidden_state.mean"}
    )
    assert json.loads(json.dumps(found.as_dict())) == found
    assert found["model"] == "tiny-bert"
    assert str(bert_folder.parent) not in json.dumps(found.as_dict())
    assert found["features"] == {"v": "last_hidden_state.mean"}
    assert found["max_length"] == {"v": 64}
    assert found["prompt"] == {}
    assert set(found["sha256"]) == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert set(found) == {
        *("layertap", "model", "commit", "architecture", "features", "max_length", "untrained_pooler", "precision"),
        *("long", "truncate_side"),
        *("backend", "instruction_set", "sha256", "prompt"),
    }
    sentence = Extractor.from_pretrained(sentence_folder).provenance(["sentence_embedding", "pooler_output"])
    assert sentence["max_length"] == {"sentence_embedding": 12, "pooler_output": 64}


def test_explain_and_repr(extractor):
    assert "blocks" in extractor.explain("hidden_states[1].mean", texts=TEXTS)
    assert "1,000 texts" in extractor.explain(num_records=1000)
    assert "tiny-bert" in repr(extractor)


def test_nothing_is_read_before_a_feature_needs_it(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path / "m")
    extractor = Extractor.from_pretrained(folder)
    backend = extractor.backend
    asked = []
    weights = backend._weights
    backend._weights = lambda names: asked.extend(names) or weights(names)
    extractor.schema("pooler_output")
    extractor.explain("pooler_output")
    assert asked == []
    extractor.extract("the film", "hidden_states[1].mean")
    assert asked
    assert not any(name.startswith(("pooler", "encoder.layer.1", "encoder.layer.2")) for name in asked)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"precision": "fp16"}, "precision 'fp16': expected one of float32, float32-high, bfloat16, float16, int8"),
        ({"precision": "float16"}, "needs a CUDA device"),
        ({"max_length": 0}, "expected a whole number of at least 1"),
        ({"max_length": 8.0}, "expected a whole number"),
        ({"max_length": True}, "expected a whole number"),
        ({"batch_tokens": -1}, "batch_tokens -1: expected a whole number of at least 1"),
        ({"untrained_pooler": "yes"}, "expected one of refuse, use"),
        ({"non_finite": "drop"}, "expected one of raise, keep"),
        ({"backend": "jax"}, "expected one of auto, native, torch"),
        ({"threads": 0}, "threads 0: expected a whole number of at least 1"),
        ({"threads": 1.5}, "threads 1.5: expected a whole number"),
        ({"threads": 1, "backend": "torch"}, r"torch\.set_num_threads\(1\) sets them"),
        ({"instruction_set": 2}, "instruction_set 2: expected a name"),
        ({"instruction_set": "avx2", "backend": "torch"}, "only the native backend has instruction_set 'avx2'; choose"),
        ({"precision": "int8", "backend": "torch"}, "only the native backend has precision 'int8'"),
        (
            {"precision": "float32-high", "backend": "torch"},
            "only the native backend has precision 'float32-high' on a processor",
        ),
        ({"device": "gpu"}, "expected cpu, cuda or cuda:N"),
    ],
)
def test_options_out_of_range_are_refused(bert_folder, options, match):
    with pytest.raises(OptionError, match=match):
        Extractor.from_pretrained(bert_folder, **options)


@pytest.mark.parametrize(("max_length", "match"), [(65, "takes 1 to 64 tokens"), (2, "at least 3 are needed")])
def test_limits_that_no_text_fits_are_refused(bert_folder, max_length, match):
    extractor = Extractor.from_pretrained(bert_folder, max_length=max_length)
    with pytest.raises(OptionError, match=match):
        extractor.extract([], "last_hidden_state.mean")


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ModelNotFoundError):
        Extractor.from_pretrained(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        Extractor.from_pretrained(tmp_path / "empty")


def test_mix_weights_must_fit(extractor):
    with pytest.raises(FeatureError, match="layer_mix has 3 weights for 2 layers"):
        extractor.extract("a", "hidden_states[1:3].layer_mix(1, 2, 3).mean")


def test_without_torch_the_message_says_what_to_install(bert_folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"pip install 'layertap\[torch\]'"):
        Extractor.from_pretrained(bert_folder, backend="torch")
