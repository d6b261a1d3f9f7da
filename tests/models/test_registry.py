from __future__ import annotations

import importlib
import pkgutil

import pytest

import layertap.models
from layertap.checkpoints.keys import parts_of
from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.key_rules import NORM_RULES
from layertap.models.registry import ARCHITECTURES, CLASS_PREFIXES, architecture, architecture_of
from layertap.models.spec import Architecture

NOT_FAMILIES = {"config", "fields", "key_rules", "positions", "refused", "registry", "rotary", "sentence", "spec"}


def rows_in_folder() -> set[str]:
    """`module:NAME` of every Architecture that a family's module holds."""
    modules = {info.name for info in pkgutil.iter_modules(layertap.models.__path__)} - NOT_FAMILIES
    return {
        f"{module}:{name}"
        for module in modules
        for name, value in vars(importlib.import_module(f"layertap.models.{module}")).items()
        if isinstance(value, Architecture)
    }


def test_table_and_folder_agree_both_ways():
    assert set(ARCHITECTURES.values()) == rows_in_folder()
    assert len(set(ARCHITECTURES.values())) == len(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_called_as_their_key(name):
    assert architecture(name).name == name
    assert architecture_of(ConfigReader({"model_type": name})) is architecture(name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_class_names_lead_to_their_row(name):
    row = architecture(name)
    assert architecture_of(ConfigReader({"architectures": [row.transformers_class]})) is row
    assert name in CLASS_PREFIXES.values()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_class_rules_drop_no_more_than_prefix_and_old_norms(name):
    row = architecture(name)
    assert set(row.key_rules[1:]) - set(row.class_rules) <= set(NORM_RULES)
    assert row.key_rules[0] not in row.class_rules


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_of_the_transformers_class(name):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    row = architecture(name)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = getattr(transformers, row.transformers_class.replace("Model", "Config"))(
        **sizes, vocab_size=99, pad_token_id=1
    )
    with torch.device("meta"):
        model = getattr(transformers, row.transformers_class)(config)
    stored = {key: tuple(value.shape) for key, value in model.named_parameters()}
    shapes = row.spec(ConfigReader(config.to_dict())).parameters()
    layout = {key: parts_of(key, row.key_rules, row.split_rules) for key in stored}
    assert sorted(name for names in layout.values() for name in names) == sorted(shapes)
    for key, names in layout.items():
        assert (sum(shapes[name][0] for name in names), *shapes[names[0]][1:]) == stored[key]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_defaults_are_those_of_the_transformers_config(name):
    transformers = pytest.importorskip("transformers")
    row = architecture(name)
    defaults = getattr(transformers, row.transformers_class.replace("Model", "Config"))().to_dict()
    assert row.spec(ConfigReader({})) == row.spec(ConfigReader(defaults))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "gpt9"}, "model_type: expected one of .*bert, .*, found 'gpt9'"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"model_type": "bert", "architectures": ["JinaBertModel"]}, "ALiBi"),
        ({"model_type": "bert", "auto_map": {"AutoModel": "jinaai/x--modeling_bert.JinaBertModel"}}, "ALiBi"),
    ],
)
def test_other_models_are_refused_by_name(config, says):
    with pytest.raises(UnsupportedModelError, match=says):
        architecture_of(ConfigReader(config))


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": "BertModel"}, {"architectures": [3]}])
def test_a_config_that_does_not_say_what_it_is(config):
    with pytest.raises(ConfigError, match=r"model_type: expected one of .*bert"):
        architecture_of(ConfigReader(config))
