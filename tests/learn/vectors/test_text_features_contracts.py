"""`TextFeatures` beside the contracts of other projects: scikit-learn's estimator checks, skrub's text encoders."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from layertap.errors import InputError
from layertap.learn import TextFeatures

NAMES = ["v_0", "v_1", "v_2"]


class RowsAsTexts(TextFeatures):
    """Reads each row of numbers as a text: for estimators of texts, scikit-learn skips all its checks but one."""

    def __init__(self, feature="hidden_states[1].mean", *, model=None):
        self.feature = feature
        self.model = model
        self.cache = self.sweep = None
        self.missing = "refuse"
        self.progress = False

    def fit(self, X, y=None):
        return super().fit(self._rows(X, reset=True), y)

    def transform(self, X):
        return super().transform(self._rows(X, reset=False))

    def _rows(self, X, *, reset):
        return [" ".join(map(str, row)) for row in validate_data(self, X, reset=reset)]

    def _extractor(self):
        return self._shared().opened(self.model, {})

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


# No check is listed as expected to fail: all pass, but one that scikit-learn skips (its array API).
@parametrize_with_checks([RowsAsTexts()])
def test_checks_of_scikit_learn(estimator, check, model):
    check(estimator.set_params(model=model))


def test_scikit_learn_skips_its_other_checks_for_texts(model):
    with pytest.warns(SkipTestWarning, match="TextFeatures which requires input .*string=True"):
        results = check_estimator(TextFeatures(model=model))
    assert [(result["check_name"], result["status"]) for result in results] == [("check_estimator_cloneable", "passed")]


@pytest.fixture(params=["pandas", "polars"])
def frames(request):
    return pytest.importorskip(request.param)


@pytest.fixture
def features(model, frames):
    encoder = TextFeatures("v = hidden_states[1].mean.truncate(3)", model=model)
    return encoder.set_output(transform=frames.__name__)


# What skrub's tests ask of its TextEncoder (skrub/tests/test_text_encoder.py at 9fb3ac5), where it is meant of any
# encoder of a column of texts.


def test_a_column_becomes_a_frame_and_the_same_one_again(features, frames):
    column = frames.Series(["hello sir", "hola que tal"])
    found = features.fit_transform(column)
    assert isinstance(found, frames.DataFrame)
    assert (found.shape, list(found.columns)) == ((2, 3), NAMES)
    for again in (features.fit_transform(column), features.transform(column), clone(features).fit_transform(column)):
        np.testing.assert_array_equal(again.to_numpy(), found.to_numpy())


def test_numbers_are_no_texts(features, frames):
    for method in ("fit", "transform"):
        with pytest.raises(InputError, match=r"text 0 is 1\.0 of type float"):
            getattr(features, method)(frames.Series([1.0, 2.5, 3.7]))


def test_missing_texts_are_refused_or_read_as_empty(features, frames):
    column = frames.Series([None, None, "hey", ""])
    with pytest.raises(InputError, match="text 0 is missing"):
        features.fit(column)
    found = features.set_params(missing="empty").fit_transform(column).to_numpy()
    np.testing.assert_array_equal(found[[0, 1]], found[[3, 3]])
    assert np.isfinite(found).all()
    assert not np.allclose(found[2], found[3])


def test_categories_are_texts(features, frames):
    values = ["A", "B", "A", "C", "B", "D"]
    column = frames.Series(values)
    categories = column.astype("category") if frames.__name__ == "pandas" else column.cast(frames.Categorical)
    found = features.fit(categories[:4]).transform(categories[4:])
    np.testing.assert_array_equal(found.to_numpy(), features.transform(column[4:]).to_numpy())


def test_a_fitted_encoder_is_pickled_without_its_weights(features, frames):
    column = frames.Series(["hello", "hola", "guttentag"])
    found = features.fit_transform(column).to_numpy()
    stored = pickle.dumps(features)
    assert len(stored) < 2000
    np.testing.assert_array_equal(pickle.loads(stored).transform(column).to_numpy(), found)
