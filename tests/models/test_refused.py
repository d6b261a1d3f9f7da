from __future__ import annotations

import re

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models import refused
from layertap.models.config import ConfigReader
from layertap.models.refused import REFUSED_CLASSES, REFUSED_MODEL_TYPES
from layertap.models.registry import ARCHITECTURES, architecture, architecture_of

CODE = {"AutoModel": "org/repo--modeling.OwnModel"}


def refusal(**config: object) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        architecture_of(ConfigReader(config, file="m/config.json"))
    assert str(caught.value).startswith("m/config.json: ")
    return str(caught.value)


@pytest.mark.parametrize(("model_type", "name"), REFUSED_MODEL_TYPES.items())
def test_by_model_type(model_type, name):
    assert refusal(model_type=model_type) == (
        f"m/config.json: model_type: found {model_type!r}: {REFUSED_CLASSES[name]}; not supported"
    )


@pytest.mark.parametrize("sign", REFUSED_CLASSES)
@pytest.mark.parametrize("field", ["architectures", "auto_map"])
def test_by_class_whatever_the_model_type_says(sign, field):
    name = f"org/repo--modeling.{sign}ForMaskedLM"
    value = [name] if field == "architectures" else {"AutoModelForMaskedLM": name}
    for model_type in ("bert", None):
        assert refusal(model_type=model_type, **{field: value}).endswith(f"{REFUSED_CLASSES[sign]}; not supported")


def test_no_family_is_refused_by_its_name():
    assert not set(REFUSED_MODEL_TYPES) & set(ARCHITECTURES)
    for name in ARCHITECTURES:
        class_name = architecture(name).transformers_class
        assert not any(class_name.startswith(sign) for sign in REFUSED_CLASSES)


@pytest.mark.parametrize("auto_map", [CODE, {"AutoTokenizer": ["org--t.OwnTokenizer", None]}, {"AutoModel": 3}])
def test_code_of_the_models_own_is_refused(auto_map):
    found = refusal(model_type="bert", auto_map=auto_map)
    assert re.search("auto_map: expected no code of the model's own, which layertap never runs, found 'Auto", found)
    assert "the native family bert serves this model_type" in found


def test_code_of_a_model_without_a_native_family():
    found = refusal(model_type="own", auto_map=CODE)
    assert found.endswith("no native family serves it, and the code that it brings (auto_map) is never run")
    assert "the native family bert" in refusal(architectures=["BertModel"], auto_map=CODE)


def test_code_that_a_native_family_stands_in_for(monkeypatch):
    monkeypatch.setitem(refused.NATIVE_TWINS, "OwnModel", "bert")
    bert = architecture("bert")
    assert architecture_of(ConfigReader({"model_type": "bert", "auto_map": CODE})) is bert
    assert "auto_map" in refusal(model_type="roberta", auto_map=CODE)


@pytest.mark.parametrize("auto_map", [None, {}, {"AutoModel": None}, {"AutoConfig": "org/repo--config.OwnConfig"}])
def test_harmless_auto_maps(auto_map):
    assert architecture_of(ConfigReader({"model_type": "bert", "auto_map": auto_map})) is architecture("bert")


def test_an_auto_map_that_is_none():
    with pytest.raises(ConfigError, match="auto_map: expected an object of class names, found 'x'"):
        architecture_of(ConfigReader({"model_type": "bert", "auto_map": "x"}))
