"""Figures: what is drawn from plain arrays, equal bytes for equal pictures, text in any script."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")

from layertap.plots.figures import (
    MAX_CONFUSED,
    ScoredFeature,
    draw_confusion,
    draw_cosines,
    draw_plane,
    draw_scores,
    draw_similarity,
)
from layertap.plots.style import CLASSES, encoded, new_figure, shortened, styled


def drawn(draw, *args, **options):
    with styled():
        figure = new_figure(5, 5)
        draw(figure, *args, **options)
        return figure, encoded(figure, "svg").decode()


def feature(layer, value, pooling="mean"):
    name = f"hidden_states[{layer}].mean" if layer is not None else "pooler_output"
    return ScoredFeature(
        name=name, layer=layer, pooling=pooling, value=value, low=value - 0.1, high=value + 0.1, control=0.2
    )


def test_scores_by_layer_and_features_beside_them():
    features = [feature(0, 0.5), feature(3, 0.8), feature(None, 0.9, None)]
    options = {
        "metric": "accuracy",
        "title": "a title",
        "control": "random labels",
        "baseline": 0.3,
        "chance": (0.25, 0.2, 0.3),
    }
    figure, text = drawn(draw_scores, features, features[2], **options)
    above, below = figure.axes
    assert list(above.lines[0].get_xdata()) == [0, 3]
    assert list(below.get_xticks()) == [0, 3, 4]
    assert "0.900" in text
    assert "pooler_output" in text
    assert text == drawn(draw_scores, features, features[2], **options)[1]


def test_a_confusion_matrix_shows_shares_of_the_most_frequent_classes():
    counts = np.diag(np.arange(1, MAX_CONFUSED + 3))
    counts[-1, 0] = counts[-1, -1]  # half of the last class is taken for one that is too rare to be shown
    names = [f"class {i}" for i in range(len(counts))]
    figure, text = drawn(draw_confusion, counts, names, title="a title")
    (axes,) = figure.axes
    assert len(axes.get_yticks()) == MAX_CONFUSED
    assert "class 13  (28)" in text
    assert {cell.get_text() for cell in axes.texts} == {"100", "50"}
    assert f"{MAX_CONFUSED} most frequent of {len(counts)} classes" in text


def test_points_of_rare_classes_are_drawn_as_others():
    classes = np.repeat(np.arange(len(CLASSES) + 2), 3)
    points = np.random.default_rng(0).normal(size=(len(classes), 2))
    names = [f"类 {i} $x" for i in range(len(CLASSES) + 2)]
    _, text = drawn(draw_plane, points, classes, names, title="t", label="l")
    assert "other classes" in text
    assert "类 0 $x" in text


def test_cosines_have_their_median():
    gold = np.linspace(0, 5, 100)
    figure, _ = drawn(draw_cosines, gold, gold / 5, title="t")
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), np.asarray(line.get_xdata()) / 5)


@pytest.mark.parametrize("are_layers", [True, False])
def test_similarities_of_layers_and_of_others(are_layers):
    _, text = drawn(draw_similarity, np.array([[1.0, 0.25], [0.25, 1.0]]), ["1", "2"], are_layers=are_layers)
    assert ("hidden state" in text) == are_layers
    assert "0.25" in text


def test_long_names_are_shortened():
    assert shortened("short") == "short"
    assert shortened("a very long name of a class") == "a very long nam..."
