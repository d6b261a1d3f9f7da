"""`TextFeatures`: scikit-learn's contract, as far as its own checks leave out estimators of texts."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layertap import Extractor, Rules, hidden_states, last_hidden_state
from layertap.engine.options import OPTIONS, ExtractorOptions, names_of
from layertap.errors import FeatureError, FeatureSyntaxError, InputError, ModelNotFoundError, OptionError, UsageError
from layertap.learn import TextFeatures

WORDS = ["good", "bad", "funny", "dull", "river", "bank", "money", "hello", "world", "film"]
TEXTS = [f"the {WORDS[i % 10]} {WORDS[i // 10]} {'was' if i % 2 else 'is'} {i}" for i in range(40)]
LABELS = np.array([i % 2 for i in range(40)])
LAYERS = [f"hidden_states[{i}].mean" for i in range(4)]
H = 32


@pytest.fixture(scope="module")
def expected(model):
    found = Extractor.from_pretrained(model).extract(TEXTS, LAYERS)
    return {name: np.asarray(value) for name, value in found.items()}


def close(one, other):
    np.testing.assert_allclose(np.asarray(one), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("feature", ["hidden_states[2].mean", "v = hidden_states[2].mean", hidden_states[2].mean])
def test_vectors_are_the_extractors(model, expected, feature):
    features = TextFeatures(feature, model=model)
    found = features.fit(TEXTS, LABELS).transform(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (40, H))
    close(found, expected[LAYERS[2]])
    assert (features.n_features_out_, features.feature_) == (H, LAYERS[2])
    close(TextFeatures(feature, model=model).transform(TEXTS), expected[LAYERS[2]])


def test_the_default_feature_is_the_extractors(model):
    close(TextFeatures(model=model).fit_transform(TEXTS), Extractor.from_pretrained(model).extract(TEXTS))


def test_float16_comes_as_float32(model, expected):
    found = TextFeatures("hidden_states[2].mean.astype(float16)", model=model).transform(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected[LAYERS[2]].astype(np.float16).astype(np.float32))


def columns():
    yield "list", lambda: TEXTS
    yield "tuple", lambda: tuple(TEXTS)
    yield "str array", lambda: np.array(TEXTS)
    yield "object array", lambda: np.array(TEXTS, dtype=object)
    yield "array of one column", lambda: np.array(TEXTS, dtype=object)[:, None]
    yield "generator", lambda: (text for text in TEXTS)
    yield "pandas Series", lambda: pytest.importorskip("pandas").Series(TEXTS, index=range(100, 140))
    yield "pandas object Series", lambda: pytest.importorskip("pandas").Series(TEXTS, dtype=object)
    yield "pandas categories", lambda: pytest.importorskip("pandas").Series(TEXTS, dtype="category")
    yield "pandas frame", lambda: pytest.importorskip("pandas").DataFrame({"text": TEXTS})
    yield "polars Series", lambda: pytest.importorskip("polars").Series("text", TEXTS)
    yield "polars frame", lambda: pytest.importorskip("polars").DataFrame({"text": TEXTS})
    yield "pyarrow array", lambda: __import__("pyarrow").array(TEXTS)
    yield "pyarrow column", lambda: __import__("pyarrow").table({"text": TEXTS})["text"]
    yield "pyarrow table", lambda: __import__("pyarrow").table({"text": TEXTS})


@pytest.mark.parametrize("column", [pytest.param(make, id=name) for name, make in columns()])
def test_columns_of_texts(model, expected, column):
    features = TextFeatures(LAYERS[1], model=model)
    close(features.transform(column()), expected[LAYERS[1]])


def test_no_text_gives_no_row(model):
    assert TextFeatures(LAYERS[1], model=model).transform([]).shape == (0, H)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ("one text", UsageError, r"X is one str, 'one text'; .* write \[text\]"),
        (b"bytes", UsageError, "X is one bytes"),
        ({"text": TEXTS}, UsageError, "X is of type dict; expected a list"),
        (7, UsageError, "X is of type int"),
        (None, UsageError, "X is of type NoneType"),
        (["a", None], InputError, r"text 1 is missing \(None\)"),
        (["a", float("nan")], InputError, r"text 1 is missing \(nan\)"),
        (["a", 3], InputError, "text 1 is 3 of type int; every text must be a str"),
        ([["a", "b"]], InputError, "text 0 is a list of 2"),
        (np.array([b"bytes"]), InputError, "text 0 is .*bytes"),
        (np.array([["a", "b"]]), UsageError, "X is a ndarray with 2 columns; expected .*: select the column"),
        (np.zeros((2, 2, 2)), UsageError, r"of shape \[2, 2, 2\]"),
        (np.array("text"), UsageError, r"of shape \[\]"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_what_is_no_column_of_texts_is_refused(model, column, error, message, method):
    with pytest.raises(error, match=message):
        getattr(TextFeatures(LAYERS[1], model=model), method)(column)


def test_missing_texts_of_frames_are_refused(model):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for column in (
        pandas.Series(["a", None]),
        pandas.Series(["a", pandas.NA], dtype="string"),
        polars.Series(["a", None]),
    ):
        with pytest.raises(InputError, match="text 1 is missing"):
            TextFeatures(LAYERS[1], model=model).fit(column)
    with pytest.raises(UsageError, match="X is a DataFrame with 2 columns"):
        TextFeatures(LAYERS[1], model=model).fit(pandas.DataFrame({"text": ["a"], "n": [1]}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"feature": "hidden_states[1]"}, FeatureError, r"a vector per token.*as in hidden_states\[1\].mean"),
        ({"feature": "last_hidden_state.words(mean)"}, FeatureError, "a vector per token, word or span"),
        ({"feature": "hidden_states[:].mean"}, FeatureError, "gives 4 vectors per text; one is needed"),
        ({"feature": "last_hidden_state.mean.astype(int8)"}, FeatureError, "gives int8 codes"),
        ({"feature": "last_hidden_state.mean.astype(binary)"}, FeatureError, "gives uint8 codes"),
        ({"feature": "hidden_states[9].mean"}, FeatureError, "9"),
        ({"feature": "last_hidden_state.men"}, FeatureSyntaxError, "mean"),
        ({"feature": 4}, OptionError, "feature is of type int; expected a feature"),
        ({"sweep": LAYERS}, OptionError, "sweep needs a cache"),
        ({"sweep": LAYERS[0], "cache": "c"}, OptionError, "sweep is of type str; expected a list"),
        ({"sweep": [None], "cache": "c"}, OptionError, "sweep is of type NoneType"),
        ({"sweep": ["hidden_states[1]"], "cache": "c"}, FeatureError, "a vector per token"),
        ({"missing": "drop"}, OptionError, "missing is 'drop'; expected 'refuse' or 'empty'"),
        ({"precision": "float64"}, OptionError, "precision"),
        ({"model": "/no/such/folder"}, ModelNotFoundError, "folder"),
    ],
)
def test_bad_parameters_are_refused_by_fit(model, options, error, message):
    features = TextFeatures(**{"model": model} | options)
    with pytest.raises(error, match=message):
        features.fit(TEXTS)


def test_parameters_clones_and_representation(model):
    features = TextFeatures(hidden_states[1].mean, model=model, cache="c", sweep=[last_hidden_state.mean])
    parameters = features.get_params()
    assert {"feature", "model", "cache", "sweep", "precision", "long", "batch_tokens"} <= set(parameters)
    twin = clone(features)
    assert twin is not features
    assert {name: str(value) for name, value in twin.get_params().items()} == {
        name: str(value) for name, value in parameters.items()
    }
    assert features.set_params(feature=LAYERS[2], cache=None, sweep=None) is features
    assert features.feature == LAYERS[2]
    assert twin.feature == hidden_states[1].mean
    with pytest.raises(ValueError, match="Invalid parameter 'layer'"):
        features.set_params(layer=3)
    assert "hidden_states[1].mean" in repr(twin)
    assert twin._repr_html_().startswith("<")


def test_clones_share_the_open_model_and_see_changed_options(model):
    features = TextFeatures(LAYERS[1], model=model).fit(TEXTS)
    twin = clone(features)
    assert twin._extractor() is features._extractor()
    short = clone(features).set_params(max_length=3)
    assert short._extractor().semantics.max_length == 3
    assert features._extractor().semantics.max_length is None
    assert not np.allclose(short.transform(TEXTS), features.transform(TEXTS))


def test_a_changed_feature_is_used(model, expected):
    features = TextFeatures(LAYERS[1], model=model).fit(TEXTS)
    close(features.set_params(feature=LAYERS[3]).transform(TEXTS), expected[LAYERS[3]])


def test_pickles_are_small_and_open_the_model_again(model, expected):
    features = TextFeatures(LAYERS[1], model=model).fit(TEXTS)
    features.transform(TEXTS)
    stored = pickle.dumps(features)
    assert len(stored) < 2000
    close(pickle.loads(stored).transform(TEXTS), expected[LAYERS[1]])


def test_feature_names(model):
    assert TextFeatures(LAYERS[1], model=model).get_feature_names_out()[[0, -1]].tolist() == [
        "hidden_states[1].mean_0",
        "hidden_states[1].mean_31",
    ]
    named = TextFeatures("v = last_hidden_state.mean.truncate(2)", model=model)
    assert named.get_feature_names_out(["text"]).tolist() == ["v_0", "v_1"]


def test_pandas_output_keeps_the_index(model, expected):
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(TEXTS, index=[f"row {i}" for i in range(40)])
    features = TextFeatures("v = hidden_states[1].mean", model=model).set_output(transform="pandas")
    found = clone(features).fit_transform(column)
    assert list(found.index) == list(column.index)
    assert list(found.columns) == [f"v_{i}" for i in range(H)]
    close(found, expected[LAYERS[1]])


def test_polars_output(model, expected):
    polars = pytest.importorskip("polars")
    features = TextFeatures("v = hidden_states[1].mean", model=model).set_output(transform="polars")
    found = features.fit_transform(polars.Series(TEXTS))
    assert isinstance(found, polars.DataFrame)
    assert found.columns == [f"v_{i}" for i in range(H)]
    close(found, expected[LAYERS[1]])


@pytest.mark.parametrize("columns", ["text", ["text"]])
def test_in_a_column_transformer(model, expected, columns):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "length": [len(text) for text in TEXTS]}, index=range(40, 0, -1))
    steps = [("v", TextFeatures(LAYERS[1], model=model), columns), ("n", StandardScaler(), ["length"])]
    table = ColumnTransformer(steps).set_output(transform="pandas")
    found = table.fit_transform(frame)
    assert found.shape == (40, H + 1)
    assert list(found.index) == list(frame.index)
    assert list(found.columns[-2:]) == ["v__hidden_states[1].mean_31", "n__length"]
    close(found.to_numpy()[:, :H], expected[LAYERS[1]])
    assert list(table.get_feature_names_out()) == list(found.columns)


def test_cross_validation_in_a_pipeline(model):
    pipeline = make_pipeline(TextFeatures("hidden_states[0].mean", model=model), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, TEXTS, LABELS, cv=4).mean() > 0.9  # is and was


def test_without_scikit_learn_one_message():
    code = "import importlib.util as util\nutil.find_spec = lambda name: None\nfrom layertap.learn import TextFeatures"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")},
    )
    assert (
        "ModuleNotFoundError: layertap.learn.TextFeatures needs scikit-learn: pip install 'layertap[learn]'"
        in ended.stderr
    )


def test_a_search_over_expressions(model, tmp_path):
    layers = [hidden_states[i].mean for i in range(3)]
    pipeline = make_pipeline(TextFeatures(model=model, cache=tmp_path, sweep=layers), LogisticRegression())
    search = GridSearchCV(pipeline, {"textfeatures__feature": layers}, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_["textfeatures__feature"] in layers


def test_every_option_of_an_extractor_is_a_parameter():
    parameters = dict(inspect.signature(TextFeatures).parameters)
    own = {"feature", "model", "cache", "sweep", "missing", "progress"}
    assert set(parameters) - own == set(names_of(ExtractorOptions)) - {"non_finite"}
    for name in set(parameters) - own:
        assert parameters[name].default == (None if name == "rules" else OPTIONS[name].default), name
    documented = re.findall(r"\w+", inspect.getdoc(TextFeatures) or "")
    assert set(parameters) <= set(documented)


def test_savings_of_the_plan_can_be_switched_off(model, expected):
    plain = TextFeatures(LAYERS[1], model=model, rules=Rules.without("stop", "capture"))
    np.testing.assert_allclose(plain.transform(TEXTS), expected[LAYERS[1]], rtol=1e-5, atol=1e-6)
    assert plain._extractor().runtime.rules == Rules.without("stop", "capture")
