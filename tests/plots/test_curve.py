"""The training curve as a picture."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")

from layertap.plots.curve import draw_curve

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_curve_with_and_without_dev_data():
    training = ([0.5, 1.0], [0.7, 0.4])
    alone = draw_curve(training, None, {}, kept=None)
    whole = draw_curve(training, ([1.0], [0.5]), {"accuracy": [0.9]}, kept=1.0)
    assert alone.startswith(PNG)
    assert whole.startswith(PNG)
    assert len({alone, whole, draw_curve(training, ([1.0], [0.5]), {"accuracy": [0.9]}, kept=None)}) == 3
    assert whole == draw_curve(training, ([1.0], [0.5]), {"accuracy": [0.9]}, kept=1.0)
