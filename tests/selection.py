"""Choose which parameters of a test run by default, and which wait for the markers `slow` and `stress`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(items: Iterable[Any], *usual: object) -> list[Any]:
    """Mark all parameters but the usual ones as `slow`.

    Args:
        items: parameters; those with an attribute `name` go by it.
        usual: parameters, or their names, that also run by default.
    """
    named = {getattr(item, "name", item): item for item in items}
    unknown = set(usual) - set(named)
    assert not unknown, f"{unknown} are not among {list(named)}"
    return [
        pytest.param(item, id=str(name), marks=() if name in usual else pytest.mark.slow)
        for name, item in named.items()
    ]


def stress_except(items: Iterable[Any], usual: Iterable[object], slow: Iterable[object]) -> list[Any]:
    """Mark parameters as `slow` where they are named so, and all others but the usual ones as `stress`.

    Args:
        items: parameters; those with an attribute `name` go by it.
        usual: parameters, or their names, that run by default.
        slow: parameters, or their names, that run with `-m slow`.
    """
    usual, slow = [*usual], [*slow]
    marks = dict.fromkeys(usual, ()) | dict.fromkeys(slow, pytest.mark.slow)
    assert len(marks) == len(usual) + len(slow), "a parameter is named twice"
    return [
        pytest.param(*case.values, id=case.id, marks=marks.get(case.id, pytest.mark.stress))
        for case in slow_except(items, *usual, *slow)
    ]
