from __future__ import annotations

import re
from typing import Any

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models import refused
from layertap.models.config import ConfigReader
from layertap.models.refused import REFUSED_CLASSES, REFUSED_MODEL_TYPES, is_class_of
from layertap.models.registry import ARCHITECTURES, OTHER_NAMES, architecture, architecture_of

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
        assert not any(is_class_of(sign, class_name) for sign in REFUSED_CLASSES)


def test_every_refused_model_type_has_a_reason():
    assert set(REFUSED_MODEL_TYPES.values()) <= set(REFUSED_CLASSES)


@pytest.mark.parametrize(
    ("family", "name", "is_one"),
    [
        ("XLM", "XLMWithLMHeadModel", True),
        ("XLM", "XLMRobertaModel", False),
        ("Bert", "BertForMaskedLM", True),
        ("Bert", "org/repo--modeling_bert.BertModel", True),
        ("Bert", "BertGenerationEncoder", False),
        ("Bert", "BertJapaneseModel", False),
        ("Roberta", "RobertaPreLayerNormForMaskedLM", False),
        ("T5", "T5EncoderModel", True),
        ("DPR", "DPRQuestionEncoder", True),
        ("XLMRobertaLoRA", "XLMRobertaLoRA", True),
        ("JinaBert", "AJinaBertModel", False),
    ],
)
def test_which_classes_are_of_a_family(family, name, is_one):
    assert is_class_of(family, name) == is_one


# Models that people meet: each has a line of its own until it is served.
# fmt: off
COMMON = [
    "albert", "bart", "bert", "bert-generation", "big_bird", "camembert", "canine", "convbert", "data2vec-text",
    "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm", "flaubert", "fnet", "funnel", "gpt2", "gte",
    "ibert", "jina_embeddings_v3", "layoutlm", "led", "llama", "longformer", "luke", "markuplm", "mbart",
    "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "mt5", "new", "nezha", "nomic_bert", "nystromformer",
    "qwen2", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "splinter",
    "squeezebert", "t5", "umt5", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod", "yoso",
]
# fmt: on


@pytest.mark.parametrize("model_type", sorted({*COMMON} - {*ARCHITECTURES, *OTHER_NAMES, "deberta-v2"}))
def test_common_encoders_are_refused_with_a_reason(model_type):
    assert REFUSED_CLASSES[REFUSED_MODEL_TYPES[model_type]] in refusal(model_type=model_type)


# What Jina v3's config.json says of itself.
JINA_V3: dict[str, Any] = {
    "architectures": ["XLMRobertaModel"],
    "auto_map": {
        "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
    },
    "lora_adaptations": ["retrieval.query"],
    "model_type": "xlm-roberta",
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
}


def test_jina_v3_is_never_xlm_roberta():
    assert "Jina v3" in refusal(**JINA_V3)
    for auto_class, name in JINA_V3["auto_map"].items():
        assert "Jina v3" in refusal(**JINA_V3 | {"auto_map": {auto_class: name}})
    for field in ("position_embedding_type", "rotary_emb_base", "lora_adaptations"):
        with pytest.raises(UnsupportedModelError, match=f"{field} is"):
            architecture("xlm-roberta").spec(ConfigReader({field: JINA_V3[field]}))


# What jina-embeddings-v2's says.
JINA_V2 = {
    "architectures": ["JinaBertForMaskedLM"],
    "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    "feed_forward_type": "geglu",
    "model_type": "bert",
    "position_embedding_type": "alibi",
}


@pytest.mark.parametrize("without", [(), ("architectures",), ("auto_map",), ("architectures", "auto_map")])
def test_jina_v2_is_never_bert(without):
    config = {key: value for key, value in JINA_V2.items() if key not in without}
    with pytest.raises(UnsupportedModelError, match=r"ALiBi|position_embedding_type is 'alibi'"):
        architecture_of(ConfigReader(config)).spec(ConfigReader(config))


def test_every_model_of_transformers_is_served_or_refused_by_its_name():
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    modeling = pytest.importorskip("transformers.models.auto.modeling_auto")
    assert len(auto.CONFIG_MAPPING_NAMES) > 300
    tempting = [architecture(name).transformers_class for name in ARCHITECTURES]
    for model_type in auto.CONFIG_MAPPING_NAMES:
        own = modeling.MODEL_MAPPING_NAMES.get(model_type)
        own = list(own) if isinstance(own, tuple) else [own] if own else []
        for architectures in ([], own, *([name] for name in tempting)):
            config = ConfigReader({"model_type": model_type, "architectures": architectures})
            if model_type in ARCHITECTURES:
                if architectures in ([], own):
                    assert architecture_of(config).name == model_type
            else:
                with pytest.raises(UnsupportedModelError) as caught:
                    architecture_of(config)
                assert any(f"found {name!r}" in str(caught.value) for name in (model_type, *architectures))


def test_every_class_of_transformers_is_its_own_family_s_or_refused_by_its_name():
    """As configs older than `model_type` have it."""
    modeling = pytest.importorskip("transformers.models.auto.modeling_auto")
    tables = [table for name, table in vars(modeling).items() if name.endswith("_MAPPING_NAMES")]
    classes = {
        (model_type, name)
        for table in tables
        for model_type, names in table.items()
        for name in (names if isinstance(names, list | tuple) else [names])
        if name is not None
    }
    assert len(classes) > 800
    owners: dict[str, set[str]] = {}
    for model_type, name in classes:
        owners.setdefault(name, set()).add(model_type)
    for name, model_types in owners.items():
        config = ConfigReader({"architectures": [name]})
        if model_types & set(ARCHITECTURES):
            assert architecture_of(config).name in model_types
        else:
            with pytest.raises(UnsupportedModelError) as caught:
                architecture_of(config)
            assert repr(name) in str(caught.value)


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
