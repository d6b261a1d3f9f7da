"""No field of a config is ignored that changes what transformers computes.

Each field of each family's config takes other values. Where layertap reads the same encoder as before, transformers has
to give the same states as before, from the same weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.errors import ConfigError  # noqa: E402 - needs torch
from layertap.models.config import ConfigReader  # noqa: E402
from layertap.models.registry import architecture_of  # noqa: E402
from layertap.testing.families import random_sequences  # noqa: E402
from layertap.verify.reference import Reference, quiet_transformers  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402
from tests.selection import slow_except  # noqa: E402

NOT_THE_FORWARD = {
    *("output_hidden_states", "output_attentions", "return_dict"),  # what is handed over
    *("chunk_size_feed_forward", "gradient_checkpointing"),  # how, not what
    "dtype",  # of which weights are stored says the file
    "transformers_version",
}


def others(value: Any) -> list[Any]:
    """Other values of the same kind, and those that fields which are null may take."""
    if value is None:
        return [True, 1, "relative_key"]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, max(0, value - 1)]
    if isinstance(value, float):
        return [value * 1.5 + 0.1, 0.0]
    if isinstance(value, str):
        return ["relative_key", "relu", "gelu_new"]
    return []


def spec_of(values: dict[str, Any]) -> object:
    reader = ConfigReader(values)
    return architecture_of(reader).spec(reader)


def states_of(row, values: dict[str, Any], weights: dict[str, Any], ids) -> np.ndarray:
    """Every state of transformers with these weights, or an exception: it does not build such a model."""
    import transformers
    from transformers.initialization import no_init_weights

    with quiet_transformers(), no_init_weights():
        module = getattr(transformers, row.model_class)(getattr(transformers, row.config_class)(**values))
        module.load_state_dict(weights, strict=True)
    return np.stack(Reference(module).outputs([ids]).states)


USUAL = ("BERT", "DistilBERT", "ALBERT", "MPNet", "ModernBERT", "EuroBERT", "GTE", "DeBERTa-v2")


@pytest.mark.parametrize("row", slow_except(ROWS, *USUAL))
def test_no_field_that_matters_is_ignored(row):
    module = row.random_model(row.small)
    weights = module.state_dict()
    values = {**module.config.to_dict()}
    (ids,) = random_sequences([17], module.config.vocab_size)
    expected = np.stack(Reference(module).outputs([ids]).states)
    same = spec_of(values)
    ignored, compared = [], 0
    for field, value in values.items():
        for other in others(value) if field not in NOT_THE_FORWARD else ():
            changed = values | {field: other}
            try:
                if spec_of(changed) != same:
                    continue
            except ConfigError:
                continue
            try:
                found = states_of(row, changed, weights, ids)
            except Exception:  # transformers refuses it, so there is nothing to compare with
                continue
            compared += 1
            if found.shape != expected.shape or not math.isclose(np.abs(found - expected).max(), 0, abs_tol=1e-4):
                ignored.append((field, value, other))
    assert compared >= 10
    assert not ignored


def test_an_ignored_field_would_show(monkeypatch):
    (row,) = [row for row in ROWS if row.name == "BERT"]
    # as if layertap did not look at the activation
    monkeypatch.setitem(globals(), "spec_of", lambda values, look=spec_of: look(values | {"hidden_act": "gelu"}))
    with pytest.raises(AssertionError, match="hidden_act"):
        test_no_field_that_matters_is_ignored(row)
