from __future__ import annotations

import pytest

from layertap.plots.style import CLASSES, DARK, GROUND, INK, SERIES, encoded, in_the_dark, new_figure, styled

pytest.importorskip("matplotlib")


def test_colours_of_classes_and_series_are_distinct():
    assert len(set(CLASSES)) == len(CLASSES)
    assert len(set(SERIES)) == len(SERIES)


def test_a_picture_takes_dark_colours_in_the_dark():
    with styled():
        figure = new_figure(2, 2)
        figure.subplots().set_title("title")
        plain = encoded(figure, "svg").decode()
    svg = in_the_dark(plain)
    assert svg.count("<style>@media (prefers-color-scheme: dark)") == 1
    assert f'[style*="fill: {INK}"]{{fill:{DARK[INK]} !important}}' in svg
    assert f"fill: {INK}" in plain  # the title, which the rule selects
    assert GROUND in DARK
