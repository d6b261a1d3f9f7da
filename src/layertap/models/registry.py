"""Which architecture a config belongs to: one literal table."""

from __future__ import annotations

from importlib import import_module

from layertap.errors import UnsupportedModelError
from layertap.models.config import ConfigReader, short
from layertap.models.spec import Architecture

# model_type -> "module:row" in this package
ARCHITECTURES: dict[str, str] = {
    "bert": "bert:BERT",
    "camembert": "roberta:CAMEMBERT",
    "roberta": "roberta:ROBERTA",
    "xlm-roberta": "roberta:XLM_ROBERTA",
}

# Models that call themselves by a name of the table and are something else: a sign in `architectures`
# or `auto_map`, and what it means.
IMPOSTORS: dict[str, str] = {
    "JinaBert": "JinaBERT uses ALiBi instead of position embeddings",
    "NewModel": "GTE-new uses rotary positions",
}

# First word of a transformers class -> model_type, for configs older than `model_type`.
CLASS_PREFIXES: dict[str, str] = {
    "XLMRoberta": "xlm-roberta",
    "Camembert": "camembert",
    "Roberta": "roberta",
    "Bert": "bert",
}


def architecture(name: str) -> Architecture:
    """The row of a `model_type` that the table holds."""
    module, row = ARCHITECTURES[name].split(":")
    found = getattr(import_module(f"layertap.models.{module}"), row)
    assert isinstance(found, Architecture)
    return found


def architecture_of(config: ConfigReader) -> Architecture:
    """The architecture of a `config.json`.

    Raises:
        UnsupportedModelError: an architecture that layertap does not run, by name.
        ConfigError: a config that does not say what it is.
    """
    values = config.values
    signs = f"{values.get('architectures')} {values.get('auto_map')}"
    for sign, reason in IMPOSTORS.items():
        if sign in signs:
            raise UnsupportedModelError(f"{config.file}: {sign} in architectures or auto_map: {reason}; not supported")
    model_type = values.get("model_type")
    if model_type is None:
        model_type = _from_class_name(config)
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{config.file}: model_type {short(model_type)} is not supported; supported are " + ", ".join(ARCHITECTURES)
        )
    return architecture(model_type)


def _from_class_name(config: ConfigReader) -> str:
    classes = config.values.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    for prefix, model_type in CLASS_PREFIXES.items():
        if name.startswith(prefix):
            return model_type
    raise config.fail("model_type", "one of " + ", ".join(ARCHITECTURES))
