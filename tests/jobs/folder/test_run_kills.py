"""A few of the kills of `tests/jobs/kills.py`, which does any number of them."""

from __future__ import annotations

import pytest

from tests.jobs.kills import run


@pytest.mark.parametrize("kills", [pytest.param(6, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.stress)])
def test_kills_lose_nothing(kills):
    for name, result in run(kills=kills, seed=7, runners=["in-process", "index", "pool"]).items():
        assert result.kills, name
        assert result.is_good, (name, result)
