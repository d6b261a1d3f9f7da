"""Finds the architecture of a config in one literal table."""

from __future__ import annotations

from importlib import import_module

from layertap.errors import UnsupportedModelError
from layertap.models.config import ConfigReader, short
from layertap.models.refused import is_class_of, refuse_by_name, refuse_foreign_code
from layertap.models.spec import Architecture

# model_type -> "module:row" in this package
ARCHITECTURES: dict[str, str] = {
    "albert": "albert:ALBERT",
    "bert": "bert:BERT",
    "camembert": "roberta:CAMEMBERT",
    "deberta-v2": "deberta_v2:DEBERTA_V2",
    "distilbert": "distilbert:DISTILBERT",
    "electra": "electra:ELECTRA",
    "eurobert": "eurobert:EUROBERT",
    "gte": "gte:GTE",
    "megatron-bert": "prenorm:MEGATRON_BERT",
    "modernbert": "modernbert:MODERNBERT",
    "mpnet": "mpnet:MPNET",
    "nomic_bert": "nomic_bert:NOMIC_BERT",
    "roberta": "roberta:ROBERTA",
    "roberta-prelayernorm": "prenorm:ROBERTA_PRELAYERNORM",
    "xlm-roberta": "roberta:XLM_ROBERTA",
    "xlm-roberta-xl": "prenorm:XLM_ROBERTA_XL",
}

# Other names of a row's `model_type`; its spec may read which of them a config states.
OTHER_NAMES: dict[str, str] = {"new": "gte"}

# The family's part of a transformers class -> model_type, for configs older than `model_type`.
CLASS_PREFIXES: dict[str, str] = {
    "XLMRobertaXL": "xlm-roberta-xl",
    "XLMRoberta": "xlm-roberta",
    "RobertaPreLayerNorm": "roberta-prelayernorm",
    "MegatronBert": "megatron-bert",
    "Camembert": "camembert",
    "DebertaV2": "deberta-v2",
    "DistilBert": "distilbert",
    "Electra": "electra",
    "Albert": "albert",
    "NomicBert": "nomic_bert",
    "Roberta": "roberta",
    "MPNet": "mpnet",
    "EuroBert": "eurobert",
    "ModernBert": "modernbert",
    "Gte": "gte",
    "Bert": "bert",
}


def architecture(name: str) -> Architecture:
    """Return the row of a `model_type` that the table holds."""
    module, row = ARCHITECTURES[name].split(":")
    architecture = getattr(import_module(f"layertap.models.{module}"), row)
    assert isinstance(architecture, Architecture)
    return architecture


def architecture_of(config: ConfigReader) -> Architecture:
    """Return the architecture of a `config.json`.

    Raises:
        UnsupportedModelError: an architecture that layertap does not run, by name.
        ConfigError: a config that does not say what it is.
    """
    refuse_by_name(config)
    model_type = config.values.get("model_type")
    if model_type is None:
        model_type = _from_class_name(config)
    if isinstance(model_type, str):
        model_type = OTHER_NAMES.get(model_type, model_type)
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{config.file}: model_type: expected one of {', '.join(ARCHITECTURES)}, found {short(model_type)}, "
            f"which is not supported{_code(config)}"
        )
    refuse_foreign_code(config, model_type)
    return architecture(model_type)


def _code(config: ConfigReader) -> str:
    return (
        "; no native family serves it, and the code that it brings (auto_map) is never run"
        if config.values.get("auto_map")
        else ""
    )


def _from_class_name(config: ConfigReader) -> str:
    classes = config.values.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    for prefix, model_type in CLASS_PREFIXES.items():
        if is_class_of(prefix, name):
            return model_type
    if name:
        raise UnsupportedModelError(
            f"{config.file}: model_type: expected one of {', '.join(ARCHITECTURES)}, found "
            f"{'None' if 'model_type' in config.values else 'nothing'}, and architectures says {short(name)}, which is "
            "not supported"
        )
    raise config.fail("model_type", "one of " + ", ".join(ARCHITECTURES))
