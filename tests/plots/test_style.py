from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import layertap.page
from layertap.plots.style import (
    CLASSES,
    CLASSES_DARK,
    DARK,
    GROUND,
    INK,
    OPACITY,
    REST,
    encoded,
    in_the_dark,
    new_figure,
    styled,
)

pytest.importorskip("matplotlib")

# Machado, Oliveira and Fernandes (2009): linear RGB as seen without one kind of cones.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def drawn_on(ground: str, colour: str) -> npt.NDArray[np.float64]:
    """Linear RGB of a point on a ground."""
    over, under = (np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for name in (colour, ground))
    mixed = over * OPACITY + under * (1 - OPACITY)
    return np.where(mixed <= 0.04045, mixed / 12.92, ((mixed + 0.055) / 1.055) ** 2.4)


def lightness_and_hue(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A colour in Oklab (Ottosson 2020), whose distances are about those that are seen; black to white is 100."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    axes = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    axes.append([0.0259040371, 0.7827717662, -0.8086757660])
    values: npt.NDArray[np.float64] = 100 * np.array(axes) @ np.cbrt(np.array(cones) @ linear)
    return values


@pytest.mark.parametrize(("classes", "ground"), [(CLASSES, GROUND), (CLASSES_DARK, DARK[GROUND])])
def test_colours_of_classes_can_be_seen_and_told_apart(classes, ground):
    behind = drawn_on(ground, ground)
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour in (*classes, REST):
        darker, lighter = sorted((luminance @ drawn_on(ground, colour), luminance @ behind))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, f"WCAG 1.4.11, {colour}"
    for matrix in SEEN.values():
        places = [lightness_and_hue(np.clip(matrix @ drawn_on(ground, colour), 0, 1)) for colour in classes]
        apart = {
            pair: float(np.linalg.norm(places[pair[0]] - places[pair[1]]))
            for pair in itertools.combinations(range(len(classes)), 2)
        }
        assert min(apart.values()) > 5.5
        assert min(value for (_, other), value in apart.items() if other < 6) > 6.5


def test_the_page_has_the_same_colours():
    script = (Path(layertap.page.__file__).parent / "static/colours.js").read_text(encoding="utf-8")
    for name, classes in (("light", CLASSES), ("dark", CLASSES_DARK)):
        listed = re.search(rf"{name}: \[(.*?)\],\n", script)
        assert listed is not None
        assert tuple(re.findall(r'"(.*?)"', listed[1])) == classes
    assert f'light: "{REST}"' in script


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
