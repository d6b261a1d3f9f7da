"""Fused tensors: one stored, several weights; and the way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from layertap.checkpoints import load
from layertap.checkpoints.keys import account_for, parts_of, stored_layout, used_rules, used_splits
from layertap.checkpoints.source import locate
from layertap.errors import WeightsError
from layertap.models.bert import BERT
from layertap.models.config import ConfigReader
from layertap.models.key_rules import KeyRule, SplitRule

AT = "encoder.layer.#.attention.self."
RULES = (*BERT.key_rules, KeyRule("layers.#.Wo.*", "encoder.layer.#.attention.output.dense.*"))
QKV = SplitRule("layers.#.Wqkv.*", (f"{AT}query.*", f"{AT}key.*", f"{AT}value.*"))
KEY_VALUE = SplitRule("layers.#.Wkv.*", (f"{AT}key.*", f"{AT}value.*"))
NAMES = list(BERT.spec(ConfigReader({"num_hidden_layers": 12})).parameters())


def test_a_split_rule_both_ways():
    assert QKV.to_parts("layers.11.Wqkv.bias") == (
        "encoder.layer.11.attention.self.query.bias",
        "encoder.layer.11.attention.self.key.bias",
        "encoder.layer.11.attention.self.value.bias",
    )
    assert QKV.to_fused("encoder.layer.11.attention.self.key.bias") == ("layers.11.Wqkv.bias", 1)
    for other in ("layers.x.Wqkv.bias", "layers.11.Wqkv", "encoder.layer.11.attention.self.key_bias"):
        assert QKV.to_parts(other) is None
        assert QKV.to_fused(other) is None


@pytest.mark.parametrize(
    ("stored", "canonical"),
    [
        ("layers.10.Wo.weight", "encoder.layer.10.attention.output.dense.weight"),
        ("layers..Wo.weight", None),
        ("layers.1x.Wo.weight", None),
        ("x.layers.1.Wo.weight", None),
        ("layers.1.Wo.a.b#*", "encoder.layer.1.attention.output.dense.a.b#*"),
    ],
)
def test_numbers_in_renamings(stored, canonical):
    rule = RULES[-1]
    assert rule.to_canonical(stored) == canonical
    if canonical is not None:
        assert rule.to_stored(canonical) == stored


def test_a_renaming_without_a_wildcard():
    rule = KeyRule("pooler.weight", "pooler.dense.weight")
    assert rule.to_canonical("pooler.weight") == "pooler.dense.weight"
    assert rule.to_stored("pooler.dense.weight") == "pooler.weight"
    assert rule.to_canonical("pooler.dense.weight") is rule.to_canonical("poolerxweight") is None


@given(prefixed=st.booleans(), renamed=st.booleans(), split=st.sampled_from([(), (QKV,), (KEY_VALUE,)]))
def test_a_files_layout_is_found_and_is_the_way_back(prefixed, renamed, split):
    spelling = [rule for rule, used in zip((RULES[0], RULES[-1]), (prefixed, renamed), strict=True) if used]
    layout = stored_layout(NAMES, spelling, split)
    assert sorted(name for names in layout.values() for name in names) == sorted(NAMES)
    splits = (QKV, KEY_VALUE)
    table = account_for(layout, rules=RULES, splits=splits, ignored=BERT.ignored_keys, file="f")
    assert table.stored == {name: key for key, names in layout.items() for name in names}
    assert table.fused == {key: names for key, names in layout.items() if len(names) > 1}
    assert table.num_blocks == 12
    assert {key: parts_of(key, RULES, splits) for key in layout} == layout
    found = used_rules(layout, RULES), used_splits(layout, RULES, splits)
    assert found == (tuple(spelling), split)
    assert stored_layout(NAMES, *found) == layout


def test_a_weight_that_is_stored_twice_is_refused():
    keys = ["bert.layers.0.Wqkv.weight", "encoder.layer.0.attention.self.key.weight"]
    with pytest.raises(WeightsError, match=r"f: bert\.layers\.0\.Wqkv\.weight and encoder.layer.0.attention.self.key"):
        account_for(keys, rules=RULES, splits=(QKV,), ignored=BERT.ignored_keys, file="f")


@pytest.fixture
def opened(monkeypatch):
    family = replace(BERT, key_rules=RULES, split_rules=(QKV, KEY_VALUE))
    monkeypatch.setattr(load, "architecture_of", lambda _config: family)
    return lambda folder: load.open_model(locate(folder))


def fuse(folder, *rules):
    """Rewrites a checkpoint with these fused tensors."""
    arrays = load_file(folder / "model.safetensors")
    layout = stored_layout(arrays, (), rules)
    fused = {key: np.concatenate([arrays[name] for name in names]) for key, names in layout.items()}
    save_file(fused, folder / "model.safetensors")


@pytest.mark.parametrize("rule", [QKV, KEY_VALUE])
def test_a_fused_checkpoint_holds_the_same_weights(tmp_path, make_checkpoint, opened, rule):
    plain = opened(make_checkpoint(tmp_path / "plain"))
    folder = make_checkpoint(tmp_path / "fused")
    fuse(folder, rule)
    files = opened(folder)
    assert (plain.split_rules, files.split_rules) == ((), (rule,))
    assert (files.unused_keys, files.missing) == ((), ())
    assert (files.num_parameters, files.num_bytes) == (plain.num_parameters, plain.num_bytes)
    names = list(files.spec.parameters())
    found, expected = files.weights(names), plain.weights(names)
    for name in names:
        assert np.array_equal(found[name].to_float32(), expected[name].to_float32()), name


def test_parts_of_a_fused_tensor_are_read_each_by_itself(tmp_path, make_checkpoint, opened):
    folder = make_checkpoint(tmp_path)
    fuse(folder, KEY_VALUE)
    files = opened(folder)
    key, value = files.weights(f"encoder.layer.1.attention.self.{name}.weight" for name in ("key", "value")).values()
    fused = files.tensors["encoder.layer.1.attention.self.key.weight"].key
    stored = load_file(folder / "model.safetensors")[fused]
    rows = len(stored) // 2
    for view, begin in ((key, 0), (value, rows)):
        assert view.nbytes == stored.nbytes // 2
        np.testing.assert_array_equal(view.to_float32(), stored[begin : begin + rows])


@pytest.mark.parametrize("shape", [(97, 32), (96, 31), (96,), (3, 32, 32), ()])
def test_a_fused_tensor_of_another_shape(tmp_path, make_checkpoint, opened, shape):
    folder = make_checkpoint(tmp_path)
    fuse(folder, QKV)
    arrays = load_file(folder / "model.safetensors")
    arrays["layers.1.Wqkv.weight"] = np.zeros(shape, np.float32)
    save_file(arrays, folder / "model.safetensors")
    with pytest.raises(WeightsError) as refusal:
        opened(folder)
    assert "layers.1.Wqkv.weight: expected shape [96, 32] (as config.json says" in str(refusal.value)
    assert f"found {list(shape)}" in str(refusal.value)


def test_a_part_that_is_damaged_is_named_by_its_stored_key(tmp_path, make_checkpoint, opened):
    folder = make_checkpoint(tmp_path)
    fuse(folder, QKV)
    arrays = load_file(folder / "model.safetensors")
    arrays["layers.1.Wqkv.weight"][40, 3] = np.nan
    save_file(arrays, folder / "model.safetensors")
    files = opened(folder)
    assert files.weights(["encoder.layer.1.attention.self.query.weight"])
    with pytest.raises(WeightsError, match=r"layers.1.Wqkv.weight: expected finite"):
        files.weights(["encoder.layer.1.attention.self.key.weight"])
