from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from layertap.checkpoints.adapter_config import LoraConfig, base_of, read_lora_config
from layertap.errors import ConfigError, UnsupportedModelError


def write(folder: Path, **fields: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "b", **fields}))
    return file


def read(folder: Path, **fields: Any) -> LoraConfig:
    return read_lora_config(write(folder, **fields))


def test_defaults_are_those_of_peft(tmp_path):
    config = read(tmp_path)
    assert (config.rank, config.alpha, config.bias, config.saved, config.dora) == (8, 8, "none", (), False)
    assert config.scale_of("encoder.layer.0.output.dense") == 1
    assert config.adapts("encoder.layer.0.output.dense") is None


def test_ranks_and_scales(tmp_path):
    fields: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"layer.1.output.dense": 9, r"layer\.[12]\.attention.*": 16},
        "alpha_pattern": {"output.dense": 3.5},
    }
    config = read(tmp_path, **fields)
    assert config.rank_of("encoder.layer.1.output.dense") == 9
    assert config.rank_of("bert.encoder.layer.2.attention.self.query") == 16
    assert config.rank_of("encoder.layer.3.attention.self.query") == 4
    # an expression has to begin after a dot
    assert config.rank_of("sublayer.1.output.dense") == 4
    assert config.scale_of("encoder.layer.1.output.dense") == 3.5 / 9
    assert config.scale_of("encoder.layer.3.attention.self.query") == 6 / 4
    stabilised = read(tmp_path, use_rslora=True, **fields)
    assert stabilised.scale_of("encoder.layer.1.output.dense") == 3.5 / 3
    assert stabilised.scale_of("pooler.dense") == 6 / math.sqrt(4)


@pytest.mark.parametrize(
    ("fields", "module", "expected"),
    [
        ({"target_modules": ["query"]}, "encoder.layer.0.attention.self.query", True),
        ({"target_modules": ["query"]}, "encoder.layer.0.attention.self.subquery", False),
        ({"target_modules": ["query"]}, "query", True),
        ({"target_modules": "all-linear"}, "anything", None),
        ({"target_modules": r".*\.[01]\..*query"}, "encoder.layer.1.attention.self.query", True),
        ({"target_modules": r".*\.[01]\..*query"}, "encoder.layer.2.attention.self.query", False),
        ({"target_modules": ["dense"], "exclude_modules": ["pooler.dense"]}, "pooler.dense", False),
        ({"target_modules": ["dense"], "exclude_modules": ".*pooler.*"}, "bert.pooler.dense", False),
        ({"target_modules": ["dense"], "modules_to_save": ["pooler"]}, "bert.pooler.dense", False),
        ({"target_modules": ["dense"], "layers_to_transform": 1}, "encoder.layer.1.output.dense", True),
        ({"target_modules": ["dense"], "layers_to_transform": [0, 2]}, "encoder.layer.1.output.dense", False),
        ({"target_modules": ["dense"], "layers_to_transform": [0, 2]}, "pooler.dense", False),
        (
            {"target_modules": ["dense"], "layers_to_transform": [1], "layers_pattern": "layer"},
            "encoder.layer.1.output.dense",
            True,
        ),
        (
            {"target_modules": ["dense"], "layers_to_transform": [1], "layers_pattern": ["h"]},
            "encoder.layer.1.output.dense",
            False,
        ),
    ],
)
def test_targets(tmp_path, fields, module, expected):
    assert read(tmp_path, **fields).adapts(module) is expected


def test_modules_that_are_stored_whole(tmp_path):
    config = read(tmp_path, modules_to_save=["classifier", "LayerNorm"])
    assert config.saves("classifier.dense.weight")
    assert config.saves("bert.encoder.layer.0.output.LayerNorm.bias")
    assert not config.saves("encoder.layer.0.output.dense.bias")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3': only adapters of the kind LORA are merged"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type is 'PROMPT_TUNING'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa': it may change the base model's weights"),
        ({"init_lora_weights": 1}, "init_lora_weights is 1"),
        ({"trainable_token_indices": [3]}, "'trainable_token_indices' is .3.: tokens trained one by one"),
        ({"alora_invocation_tokens": [3]}, "active from certain tokens on, so it cannot be merged"),
        ({"layer_replication": [[0, 1]]}, "layers used more than once"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"lora_bias": True}, "a bias of the low-rank factors"),
        ({"a_new_field": 3}, "'a_new_field' is 3: this field of PEFT is not known"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, fields, message):
    with pytest.raises(UnsupportedModelError, match=f"adapter_config.json: .*{message}"):
        read(tmp_path, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "r: expected a whole number from 1"),
        ({"lora_alpha": "8"}, "lora_alpha: expected a number"),
        ({"rank_pattern": {"a": 0}}, "rank_pattern: expected an object of names and ranks"),
        ({"rank_pattern": {"a": 1.5}}, "rank_pattern: expected an object of names and ranks"),
        ({"alpha_pattern": {"a": "x"}}, "alpha_pattern: expected an object of names and numbers"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: '.' is no regular expression"),
        ({"target_modules": "("}, "target_modules: '.' is no regular expression"),
        ({"target_modules": [1]}, "target_modules: expected a list of names"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform: expected a number of a layer"),
        ({"bias": "some"}, "bias: expected one of none, all, lora_only"),
        ({"use_dora": 1}, "use_dora: expected true or false"),
    ],
)
def test_impossible_values(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=f"adapter_config.json: {message}"):
        read(tmp_path, **fields)


def test_fields_without_effect_and_empty_ones_are_accepted(tmp_path):
    read(
        tmp_path, lora_dropout=0.1, task_type="SEQ_CLS", fan_in_fan_out=True, a_new_field=None, another={}, third=False
    )


def test_base_model(tmp_path):
    assert base_of(write(tmp_path, revision="v2")) == ("b", "v2")
    assert base_of(write(tmp_path, revision="")) == ("b", None)
    with pytest.raises(ConfigError, match="base_model_name_or_path: expected the folder or the hub id"):
        base_of(write(tmp_path, base_model_name_or_path=None))
    with pytest.raises(ConfigError, match="revision: expected a branch"):
        base_of(write(tmp_path, revision=3))


def test_matching_is_that_of_peft(tmp_path):
    pytest.importorskip("peft")
    from peft import LoraConfig as PeftConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    modules = [
        *("embeddings.word_embeddings", "pooler.dense", "bert.pooler.dense", "classifier.dense", "query"),
        *(f"encoder.layer.{i}.{name}" for i in (0, 1, 11) for name in ("attention.self.query", "output.dense")),
    ]
    choices: list[dict[str, Any]] = [
        {"target_modules": ["query", "output.dense"]},
        {"target_modules": ["dense"], "exclude_modules": ["pooler.dense"]},
        {"target_modules": ["dense"], "exclude_modules": r"(bert\.)?pooler.*"},
        {"target_modules": ["dense"], "modules_to_save": ["classifier", "pooler"]},
        {"target_modules": ["dense", "query"], "layers_to_transform": [1]},
        {"target_modules": ["dense", "query"], "layers_to_transform": 11, "layers_pattern": "layer"},
        {"target_modules": r".*\.1\..*"},
    ]
    for fields in choices:
        theirs, ours = PeftConfig(**fields), read(tmp_path, **fields)
        assert [bool(check_target_module_exists(theirs, module)) for module in modules] == [
            ours.adapts(module) for module in modules
        ]


def test_every_field_of_peft_is_known():
    peft = pytest.importorskip("peft")
    from dataclasses import fields

    from layertap.checkpoints.adapter_config import HARMLESS, HONOURED, REFUSED

    names = {field.name for field in fields(peft.LoraConfig)}
    assert names <= {*HONOURED, *HARMLESS, *REFUSED}
