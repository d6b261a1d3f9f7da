"""Which target a feature is saved to."""

from __future__ import annotations

import pytest

import layertap
from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference, Semantics
from layertap.errors import OptionError
from layertap.saving.save import target_of

pytest.importorskip("transformers")

from tests.conformance.test_families import ROWS
from tests.saving.families import write_family


@pytest.mark.parametrize(
    ("family", "feature", "target"),
    [
        ("BERT", "hidden_states[2].mean", "folder"),
        ("BERT", "hidden_states[2].sum", "onnx"),
        ("BERT", "hidden_states[2].words(mean)", None),
        ("BERT", "hidden_states[2].mean(special=False)", None),
        ("ModernBERT", "hidden_states[2].mean", "onnx"),
        ("ModernBERT", "last_hidden_state.mean", "folder"),
    ],
)
def test_a_graph_where_a_folder_cannot_say_it(family, feature, target, tmp_path):
    row = next(row for row in ROWS if row.name == family)
    opened = open_reference(ModelReference(name=str(write_family(tmp_path / "m", row))))
    assert target_of(opened, feature, Semantics()) == target


@pytest.mark.parametrize("output", [None, 5, b"folder", ""])
def test_an_output_that_is_no_path_is_refused(output):
    with pytest.raises(OptionError, match="expected a path"):
        layertap.save("hidden_states[1].mean", output)
